/** The call of this page: microphone, words, state, and how the connection is. */

import { MicrophoneError, Phase } from "./agentos-voice.js";
import { alarm, card, element, facts, fill } from "./dom.js";
import { decibels, duration, number, sound, timeOf } from "./format.js";
import { levelMeter } from "./level-meter.js";
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
const EVERY_MS = 250; // figures are drawn so often while they change

export function callView({ call, about }) {
  if (call === null) {
    return {
      title: "Call",
      content: [
        element("h1", {}, "No call"),
        element("p", { class: "lead" }, "This page has no call in progress."),
        element("a", { class: "button primary", href: "#/new" }, "New call"),
      ],
    };
  }
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
  const after = element("div", { class: "stack", hidden: true }, element("p", {}, "The call is over."), link);
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
    if (call.over && after.hidden) finish();
    const [look, text] = CONNECTIONS[call.connection.phase];
    connection.dataset.look = look;
    if (connection.textContent !== text) connection.textContent = text;
    const said = `State: ${story.state}. ${text}.`;
    if (announced.textContent !== said) announced.textContent = said;
    timer ??= setTimeout(drawFigures, EVERY_MS);
  }

  function hint() {
    if (call.connection.phase === Phase.AWAY) return "What you say is kept, and sent when the line is back.";
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
    const { captured, waiting, received, durable, lost, connected } = call.progress;
    fill(
      figures,
      facts([
        ["Captured", duration(captured / 50)],
        ["Waiting to be sent", duration(waiting / 50)],
        ["Taken by the session", duration(received / 50)],
        ["Safe there", call.over ? null : duration(durable / 50)],
        ["Reconnects", number(Math.max(0, connected - 1))],
        ["Gaps", call.gaps.length === 0 ? "none" : `${call.gaps.length}, ${duration(lost / 50)} lost`],
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
