/** The evidence of a session, and whether the chain that it stands in holds. */

import { card, element, fill } from "./dom.js";
import { dateOf, number, shortened, spelled } from "./format.js";
import { table } from "./table.js";

const HASH = 12; // digits that are shown

/** @returns {Promise<HTMLElement>} a card; it says so when the reader may not see evidence */
export async function evidenceCard(api, sessionId) {
  const status = element("p", { class: "status", role: "status" }, "Not verified yet.");
  const verify = element("button", { type: "button", onclick: check }, "Verify again");
  const rows = table("Evidence", ["Place", "Operation", "Outcome", "Time", "Hash"]);
  const more = element("button", { type: "button", hidden: true, onclick: read }, "More records");
  let after = 0;

  async function check() {
    verify.disabled = true;
    status.textContent = "Verifying the whole chain…";
    status.dataset.look = "waiting";
    try {
      const { ok, records, head, fault, at_seq, mismatches, mismatches_total } = await api.get("v1/evidence/verification");
      status.dataset.look = ok ? "good" : "bad";
      fill(
        status,
        ok
          ? ["Verified: the chain holds, and what is stored agrees with it, ", `${number(records)} records, head `, hashOf(head)]
          : fault !== null
            ? `The chain is broken at record ${at_seq}: ${fault}`
            : `What is stored disagrees with the chain, in ${number(mismatches_total)} points: ${mismatches[0].about}: ${mismatches[0].text}`,
      );
    } catch (error) {
      status.dataset.look = "bad";
      status.textContent = `Not verified: ${error.message}`;
    } finally {
      verify.disabled = false;
    }
  }

  async function read() {
    const page = await api.get(`v1/sessions/${sessionId}/evidence`, { after });
    for (const { seq, hash, record } of page.links) {
      rows.add([number(seq), spelled(record.operation), spelled(record.status), dateOf(record.created_at), hashOf(hash)]);
    }
    after = page.last_seq;
    more.hidden = !page.more;
  }

  try {
    await read();
  } catch (error) {
    if (error.status !== 403) throw error;
    return card("Evidence", { wide: true }, element("p", { class: "hint" }, "Your token may not read evidence."));
  }
  check();
  return card("Evidence", { wide: true, action: verify }, status, rows.content, more);
}

function hashOf(hash) {
  return element("code", { title: hash }, shortened(hash, HASH));
}
