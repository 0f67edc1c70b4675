/** What the policy said, and why. */

import { card, element, facts, sentence } from "./dom.js";
import { spelled } from "./format.js";

const yes = (value) => (value === null ? null : value ? "yes" : "no");

/** A verdict in a box: allowed or not, the tier, and the reason. */
export function verdictSummary({ allowed, risk_level, explanation, factors }) {
  const unnamed = factors.filter((factor) => !explanation.includes(factor));
  const because = unnamed.length === 0 ? "" : `, because of ${unnamed.map(spelled).join(" and ")}`;
  const readable = factors.reduce((text, factor) => text.replaceAll(factor, spelled(factor)), explanation);
  return element(
    "div",
    { class: allowed ? "notice good" : "notice bad" },
    element("strong", {}, allowed ? "Allowed" : "Refused", risk_level === null ? "" : `, risk ${risk_level}`),
    sentence(readable + because),
  );
}

/** The card of a session's verdict. */
export function policyCard(found, options) {
  return card(
    "Policy",
    options,
    verdictSummary(found),
    facts([
      ["Reason", element("code", {}, found.verdict.reason_code)],
      ["Admin token needed", yes(found.admin_token_required)],
      ["Admin token valid", found.admin_token_required ? yes(found.admin_token_valid) : null],
    ]),
  );
}
