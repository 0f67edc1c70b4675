/** All sessions, newest first, kept up to date while one looks. */

import { alarm, choice, element, field, fill } from "./dom.js";
import { dateOf, duration, shortened } from "./format.js";
import { stateChip } from "./state-chip.js";

const EVERY_MS = 2000;
const PAGE = 50;
const NONE_YET = "There are no calls yet. A new call is the first.";
const NONE_FOUND = "No session matches.";

export async function sessionsView({ api, about }) {
  const project = element("input", { type: "search", id: "project", autocomplete: "off", oninput: () => again(300) });
  const states = about.machine.states.map((state) => [state, state]);
  const state = choice({ id: "state", onchange: () => again() }, [["", "any"], ...states]);
  const list = element("ul", { class: "sessions" });
  const empty = element("div", { class: "card empty" });
  const count = element("p", { class: "hint", role: "status" });
  const told = element("div", { class: "told" });
  const more = element("button", { type: "button", onclick: () => next() }, "Older sessions");
  const rows = new Map();
  let pages = 1;
  let timer = 0;
  let turn = 0;

  async function read() {
    const mine = ++turn;
    const found = [];
    let cursor = null;
    for (let page = 0; page < pages && (page === 0 || cursor !== null); page++) {
      const query = { project_id: project.value.trim(), state: state.value, limit: PAGE, cursor };
      const answer = await api.get("v1/sessions", query);
      found.push(...answer.sessions);
      cursor = answer.next_cursor;
    }
    if (mine === turn) draw(found, cursor !== null);
  }

  function draw(sessions, goesOn) {
    const kept = new Set(sessions.map((session) => session.session_id));
    for (const [id, row] of rows) {
      if (kept.has(id)) continue;
      row.remove();
      rows.delete(id);
    }
    sessions.forEach((session, at) => {
      const row = rows.get(session.session_id) ?? element("li", {});
      const version = JSON.stringify([session.state, session.last_activity_at]);
      if (row.dataset.version !== version) {
        const hadFocus = row.contains(document.activeElement);
        fill(row, rowOf(session));
        row.dataset.version = version;
        if (hadFocus) row.firstChild.focus();
      }
      rows.set(session.session_id, row);
      if (list.children[at] !== row) list.insertBefore(row, list.children[at] ?? null);
    });
    const words = `${sessions.length}${goesOn ? " or more" : ""} session${sessions.length === 1 ? "" : "s"}`;
    if (count.textContent !== words) count.textContent = words;
    more.hidden = !goesOn;
    list.hidden = sessions.length === 0;
    empty.hidden = sessions.length > 0;
    fill(empty, project.value.trim() || state.value ? NONE_FOUND : NONE_YET);
  }

  async function refresh() {
    if (!document.hidden) {
      try {
        await read();
        fill(told);
      } catch (error) {
        if (!told.hasChildNodes()) fill(told, alarm(error));
      }
    }
    again(EVERY_MS);
  }

  function again(afterMs = 0) {
    clearTimeout(timer);
    if (timer !== null) timer = setTimeout(refresh, afterMs);
  }

  function next() {
    pages += 1;
    again();
  }

  await read();
  again(EVERY_MS);
  return {
    title: "Sessions",
    content: [
      element(
        "div",
        { class: "page-top" },
        element("h1", {}, "Sessions"),
        element("a", { class: "button primary", href: "#/new" }, "New call"),
      ),
      element("div", { class: "filters", role: "search" }, field("Project", project), field("State", state)),
      told,
      count,
      empty,
      list,
      more,
    ],
    leave() {
      clearTimeout(timer);
      timer = null;
    },
  };
}

function rowOf(session) {
  const { session_id, project_id, result } = session;
  const seconds = (Date.parse(result?.stopped_at ?? session.last_activity_at) - Date.parse(session.created_at)) / 1000;
  return element(
    "a",
    { href: `#/sessions/${session_id}` },
    element("span", { class: "row-main" }, element("strong", {}, project_id), " ", element("code", {}, shortened(session_id))),
    stateChip(session.state),
    element("span", { class: "row-words" }, result?.transcript || (result ? "no words" : "")),
    element(
      "span",
      { class: "row-side" },
      `${session.provider} · ${session.stt_engine} · ${session.risk_tier} risk · `,
      element("time", { datetime: session.created_at }, dateOf(session.created_at)),
      ` · ${duration(Math.max(0, seconds))}`,
    ),
  );
}
