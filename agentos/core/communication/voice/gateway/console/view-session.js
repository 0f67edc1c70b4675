/** One session, running or stopped, with all that is known of it. */

import { onceKey } from "./api.js";
import { confirmed } from "./confirm.js";
import { alarm, card, element, facts, fill } from "./dom.js";
import { evidenceCard } from "./evidence.js";
import { dateOf, itemized, sound, spelled, timeOf } from "./format.js";
import { asTold, liveEvents } from "./live.js";
import { policyCard } from "./policy.js";
import { qualityCard } from "./quality.js";
import { recordingCard } from "./recording.js";
import { stateChip } from "./state-chip.js";
import { stateDiagram } from "./state-diagram.js";
import { Story } from "./story.js";
import { table } from "./table.js";
import { wordsPanel } from "./words.js";

const PAGE = 500;
const PASSING = ["stt_partial", "audio_received"]; // shown where they matter, and too many for a table

export async function sessionView(shared, id) {
  const { api, about, call, show } = shared;
  const path = `v1/sessions/${encodeURIComponent(id)}`;
  const [session, verdict] = await Promise.all([api.get(path), api.get(`${path}/verdict`)]);
  const story = new Story(session.state);
  const diagram = stateDiagram(about.machine);
  const words = wordsPanel(session.result === null ? "Words appear here as they are understood." : "No words were understood.");
  const events = table("Events", ["Number", "Time", "Event", "Payload"]);
  const chip = element("span", {});
  const told = element("div", { class: "told" });
  const announced = element("p", { class: "unseen", role: "status" });
  const leaving = new AbortController();

  function tell(event) {
    story.tell(event);
    if (PASSING.includes(event.event)) return;
    events.add([event.number, timeOf(event.timestamp_ms), spelled(event.event), itemized(event.payload)]);
  }

  function draw() {
    fill(chip, stateChip(story.state));
    diagram.light(story.state, story.history);
    words.show(story);
    if (announced.textContent !== story.state) announced.textContent = story.state;
  }

  async function stored() {
    let after = 0;
    for (;;) {
      const page = await api.get(`${path}/events`, { after, limit: PAGE });
      page.events.forEach((event) => tell(asTold(event)));
      after = page.last_number;
      if (!page.more) return after;
    }
  }

  async function follow(after) {
    try {
      for await (const event of liveEvents(api, id, after, leaving.signal)) {
        tell(event);
        draw();
      }
      if (result === null && !leaving.signal.aborted) await show({ focus: false }); // it has stopped: there are results now
    } catch (error) {
      fill(told, alarm(error));
    }
  }

  async function stop(event) {
    const question = "What was said so far is transcribed and recorded first. A stopped session can't go on.";
    if (!(await confirmed(question, { title: "Stop this session?", yes: "Stop the session" }))) return;
    event.target.disabled = true;
    try {
      await api.post(`${path}/stop`, undefined, { "Idempotency-Key": onceKey() });
    } catch (error) {
      event.target.disabled = false;
      fill(told, alarm(error));
    }
  }

  const { result } = session;
  const last = await stored();
  if (result !== null && !story.over) story.move(session.state, Date.parse(result.stopped_at)); // told, and not stored yet
  draw();
  const recording = result === null ? null : recordingCard(api, id, result.recording);
  const evidence = await evidenceCard(api, id);
  if (!story.over) follow(last);
  const isOurs = call !== null && !call.over && call.session.session_id === id;
  return {
    title: `Session of ${session.project_id}`,
    content: [
      element(
        "div",
        { class: "page-top" },
        element("h1", {}, `Session of ${session.project_id}`),
        chip,
        element(
          "div",
          { class: "buttons" },
          isOurs ? element("a", { class: "button primary", href: "#/call" }, "To the call") : null,
          result === null ? element("button", { type: "button", class: "danger", onclick: stop }, "Stop") : null,
        ),
      ),
      element("p", { class: "hint" }, element("code", {}, id)),
      announced,
      told,
      element(
        "div",
        { class: "cards" },
        card("State", { wide: true }, diagram.content),
        card("Transcript", { wide: true }, words.content),
        recording?.content,
        aboutCard(session),
        result === null ? null : qualityCard(result),
        policyCard(verdict, { wide: result !== null }),
        card("Events", { wide: true }, events.content),
        evidence,
      ),
    ],
    leave() {
      leaving.abort();
      diagram.leave();
      recording?.leave();
    },
  };
}

function aboutCard(session) {
  const { result, metadata } = session;
  const said = (value) => (value === true ? "yes" : value === false ? "no" : typeof value === "string" ? value : JSON.stringify(value));
  return card(
    "About",
    {},
    facts([
      ["Created", dateOf(session.created_at)],
      ["Stopped", result?.stopped_at ? dateOf(result.stopped_at) : null],
      ["End reason", result === null ? null : spelled(result.reason)],
      ["Transport", session.provider],
      ["Speech to text", session.stt_engine],
      ["Sound", sound(session.audio_format)],
      ["Recorded", session.recording_enabled ? "yes" : "no"],
      ["Audit trace", element("code", {}, session.audit_trace_id)],
      ...Object.entries(metadata).map(([name, value]) => [`${name.slice(0, 1).toUpperCase()}${spelled(name.slice(1))}`, said(value)]),
    ]),
  );
}
