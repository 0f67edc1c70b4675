/** The call of this page: microphone, words, state, and how the connection is. */

import { MicrophoneError, Phase } from "./agentos-voice.js";
import { Problem, onceKey } from "./api.js";
import { Call, callThatWasLeft, forgetTheCall } from "./call.js";
import { alarm, card, element, facts, fill } from "./dom.js";
import { decibels, duration, number, sound, spelled, timeOf } from "./format.js";
import { levelMeter } from "./level-meter.js";
import { asTold } from "./live.js";
import { stateChip } from "./state-chip.js";
import { stateDiagram } from "./state-diagram.js";
import { wordsPanel } from "./words.js";

const CONNECTIONS = {
  connecting: ["waiting", "Connecting"],
  [Phase.GREETING]: ["waiting", "Connecting"],
  [Phase.OPEN]: ["good", "Connected"],
  [Phase.AWAY]: ["waiting", "Reconnecting"],
  [Phase.ENDED]: ["over", "Ended"],
  [Phase.FAILED]: ["bad", "Lost"],
};
const KEPT = "What you say is kept, and sent when the line is back.";
const NOT_BEYOND = "If the server was restarted, this call has ended: it was not opened to go on then.";
const ENDS = {
  stopped: "",
  recovered: " The server was restarted, and ended it with what it had: its state is recovered.",
};
const EVERY_MS = 250; // figures are drawn so often while they change

export async function callView(shared) {
  const { call, about } = shared;
  if (call === null) return (await leftView(shared)) ?? noView();
  const { session, story } = call;
  const speak = element("button", { type: "button", class: "primary big", onclick: toggle });
  const end = element("button", { type: "button", class: "big", onclick: hangUp }, "End the call");
  const told = element("div", { class: "told" });
  const device = element("p", { class: "hint" });
  const chip = element("span", {});
  const announced = element("p", { class: "unseen", role: "status" });
  const connection = element("span", { class: "connection" });
  const figures = element("div", {});
  const troubles = element("ul", { class: "troubles" });
  const link = element("a", { class: "button primary", href: `#/sessions/${session.session_id}` }, "Recording, evidence and more");
  const ended = element("p", {});
  const after = element("div", { class: "stack", hidden: true }, ended, link);
  const meter = levelMeter();
  const controls = element("div", { class: "stack" }, element("div", { class: "buttons" }, speak, end), meter.content, device);
  const words = wordsPanel();
  const diagram = stateDiagram(about.machine);
  let timer = null;
  let warned = null;

  // A button that can't be used now keeps the focus: `disabled` would drop it, and who works by keys would begin again.
  const block = (button, blocked) => button.setAttribute("aria-disabled", String(blocked));

  function toggle() {
    if (speak.ariaDisabled === "true") return;
    if (call.microphone.state === "on") call.stopMicrophone();
    else call.startMicrophone();
  }

  function hangUp() {
    if (end.ariaDisabled !== "true") call.end();
  }

  function draw() {
    const { microphone } = call;
    const on = microphone.state === "on";
    speak.textContent = { on: "Stop the microphone", starting: "Starting…", stopping: "Stopping…" }[microphone.state] ?? "Start the microphone";
    speak.setAttribute("aria-pressed", String(on));
    block(speak, call.over || call.ending || microphone.state === "starting" || microphone.state === "stopping");
    block(end, call.over || call.ending);
    end.textContent = call.ending && !call.over ? "Ending…" : "End the call";
    device.textContent = on ? hint() : "";
    if (!on) meter.clear();
    warn(microphone.error ?? failure());
    diagram.light(story.state, story.history);
    fill(chip, stateChip(story.state));
    words.show(story);
    if (call.over) fill(ended, endOf());
    if (call.over && after.hidden) finish();
    const [look, text] = CONNECTIONS[call.connection.phase];
    connection.dataset.look = look;
    if (connection.textContent !== text) connection.textContent = text;
    const said = `State: ${story.state}. ${text}.`;
    if (announced.textContent !== said) announced.textContent = said;
    timer ??= setTimeout(drawFigures, EVERY_MS);
  }

  /** Why it is over, and what of it is not in the session. */
  function endOf() {
    const why = ENDS[story.reason] ?? (story.reason === null ? "" : ` It ended as ${spelled(story.reason)}.`);
    const unsent = call.unsent > 0 ? ` The last ${duration(call.unsent)} could not be sent, and is in no recording.` : "";
    return `The call is over.${why}${unsent}`;
  }

  function hint() {
    if (call.connection.phase === Phase.AWAY) return session.resumable ? KEPT : `${KEPT} ${NOT_BEYOND}`;
    if (call.microphone.interrupted) return "The browser gives no sound now. It is asked to go on; what you say meanwhile is not heard.";
    return [call.microphone.label, call.microphone.muted ? "muted by the system" : ""].filter(Boolean).join(", ");
  }

  /** Nothing can be done here any more; the focus goes on with who worked by keys. */
  function finish() {
    const hadFocus = controls.contains(document.activeElement);
    after.hidden = false;
    controls.hidden = true;
    if (hadFocus) link.focus();
  }

  function failure() {
    if (call.connection.phase !== Phase.FAILED) return null;
    const { code, reason } = call.connection;
    const error = new Error(reason || `the connection was closed with code ${code}`);
    return Object.assign(error, { title: "The call was lost" });
  }

  function warn(error) {
    if (error === warned || error?.message === warned?.message) return;
    warned = error;
    const title = error instanceof MicrophoneError ? "No sound" : error?.title;
    fill(told, error === null ? null : alarm({ title, message: error.message }));
  }

  function drawFigures() {
    timer = null;
    const { captured, waiting, received, durable, connected } = call.progress;
    const missing = call.gaps.reduce((frames, { count }) => frames + count, 0);
    fill(
      figures,
      facts([
        ["Captured", duration(captured / 50)],
        ["Waiting to be sent", duration(waiting / 50)],
        ["Received by the session", duration(received / 50)],
        ["Stored", call.over || durable === null ? null : duration(durable / 50)],
        ["Reconnects", number(Math.max(0, connected - 1))],
        ["Gaps", call.gaps.length === 0 ? "none" : `${call.gaps.length}, ${duration(missing / 50)} missing`],
        ["Level received", story.heard === null ? "not yet" : decibels(story.heard.level_dbfs)],
        ["Peak received", story.heard === null ? "not yet" : decibels(story.heard.peak_dbfs)],
      ]),
    );
    fill(troubles, story.troubles.map(({ text, atMs }) => element("li", {}, element("time", {}, timeOf(atMs)), ` ${text}`)));
  }

  const level = ({ detail }) => meter.show(detail);
  call.addEventListener("change", draw);
  call.addEventListener("level", level);
  draw();
  drawFigures();
  return {
    title: "Call",
    content: [
      element("div", { class: "page-top" }, element("h1", {}, `Call for ${session.project_id}`), chip),
      element("p", { class: "hint" }, element("code", {}, session.session_id), ` · ${sound(session.audio_format)} · ${session.stt_engine}`),
      announced,
      element(
        "div",
        { class: "cards calling" },
        card("Microphone", {}, told, controls, after),
        card("Words", {}, words.content),
        card("Connection", { action: connection }, figures, troubles),
        card("State", { wide: true }, diagram.content),
      ),
    ],
    leave() {
      clearTimeout(timer);
      timer = 0;
      diagram.leave();
      call.removeEventListener("change", draw);
      call.removeEventListener("level", level);
    },
  };
}

function noView() {
  return {
    title: "Call",
    content: [
      element("h1", {}, "No call"),
      element("p", { class: "lead" }, "This page has no call in progress."),
      element("a", { class: "button primary", href: "#/new" }, "New call"),
    ],
  };
}

/** A call that another page of this tab had, as before a reload; null when there is none, or it can't be gone on with. */
async function leftView({ api, setCall, show }) {
  const left = await callOnTheServer(api);
  if (left === null) return null;
  const { session, bookmark } = left;
  const told = element("div", { class: "told" });

  async function takeUp(event) {
    event.target.disabled = true;
    try {
      const events = await storedEvents(api, session.session_id);
      setCall(new Call(api, session, { bookmark, events }));
      await show();
    } catch (error) {
      event.target.disabled = false;
      fill(told, alarm(error));
    }
  }

  async function end(event) {
    event.target.disabled = true;
    try {
      await api.post(`v1/sessions/${session.session_id}/stop`, undefined, { "Idempotency-Key": onceKey() });
      forgetTheCall();
      location.hash = `#/sessions/${session.session_id}`;
    } catch (error) {
      event.target.disabled = false;
      fill(told, alarm(error));
    }
  }

  return {
    title: "Call",
    content: [
      element("h1", {}, "A call is in progress"),
      element("p", { class: "lead" }, `The page was loaded again in a call for ${session.project_id}. What was not sent before is a gap in it.`),
      told,
      element(
        "div",
        { class: "buttons" },
        element("button", { type: "button", class: "primary", onclick: takeUp }, "Resume the call"),
        element("button", { type: "button", onclick: end }, "End the call"),
      ),
    ],
  };
}

/**
 * What was left of a call that the server has still open: `{session, bookmark}`; what it has not, or does not give to this reader,
 * is forgotten. A server that can't say is asked again by the next who wants to know.
 */
export async function callOnTheServer(api) {
  const left = callThatWasLeft();
  if (left === null) return null;
  try {
    const session = await api.get(`v1/sessions/${encodeURIComponent(left.session_id)}`);
    if (session.state === "created" || session.state === "active") return { session, bookmark: left.bookmark };
  } catch (error) {
    if (!(error instanceof Problem) || (error.status !== 403 && error.status !== 404)) return null;
  }
  forgetTheCall();
  return null;
}

async function storedEvents(api, id) {
  const events = [];
  for (;;) {
    const page = await api.get(`v1/sessions/${id}/events`, { after: events.at(-1)?.number ?? 0, limit: 500 });
    events.push(...page.events.map(asTold));
    if (!page.more || page.events.length === 0) return events;
  }
}
