/** A new call: what it is for, and what the policy says of it before it begins. */

import { Problem, onceKey } from "./api.js";
import { Call } from "./call.js";
import { alarm, choice, element, field, fill, tick } from "./dom.js";
import { verdictSummary } from "./policy.js";

const ASK_AFTER_MS = 400; // of no typing
const RATES = [8000, 16_000, 24_000, 48_000];

/** What the policy says of a refused request stands above; here, where it is on record. */
function onRecord({ title, body }) {
  return { title, message: `The refusal is in evidence, under ${body.session_id}.` };
}

export function newCallView(shared) {
  const { api, about, call } = shared;
  if (call !== null && !call.over) return busyView();
  const project = element("input", { id: "project", value: "demo", required: true, maxLength: 200, autocomplete: "off" });
  const engine = choice({ id: "engine" }, about.stt_providers.map((name) => [name, name]));
  engine.value = "pocketsphinx";
  const rate = choice({ id: "rate" }, RATES.map((hertz) => [hertz, `${hertz / 1000} kHz`]));
  rate.value = 16_000;
  const recording = tick("Record the call", { id: "recording", checked: true });
  const sensitive = tick("Callers may mention sensitive data", { id: "sensitive" });
  const access = tick("The call gives access to data", { id: "access" });
  const resumable = tick("Resume the call after a restart of the server", { id: "resumable" });
  const silence = element("input", { type: "number", id: "silence", min: 1, max: 86_400, autocomplete: "off" });
  const admin = element("input", { type: "password", id: "admin", autocomplete: "off", spellcheck: false });
  const explained = element("div", { "aria-live": "polite" });
  const told = element("div", { class: "told" });
  const button = element("button", { type: "submit", class: "primary" }, "Open the call");
  const ticked = (box) => box.querySelector("input").checked;
  let timer = 0;
  let turn = 0;
  let key = onceKey();

  const question = () => ({
    project_id: project.value.trim(),
    provider: "local",
    stt_provider: engine.value,
    metadata: {
      recording_enabled: ticked(recording),
      sensitive_data: ticked(sensitive),
      requires_data_access: ticked(access),
    },
    ...(admin.value === "" ? {} : { admin_token: admin.value }),
  });

  async function ask() {
    const mine = ++turn;
    try {
      const verdict = project.value.trim() === "" ? null : await api.post("v1/policy/explanations", question());
      if (mine === turn) fill(explained, verdict === null ? null : verdictSummary(verdict));
    } catch (error) {
      if (mine === turn) fill(explained, alarm(error));
    }
  }

  function changed() {
    key = onceKey();
    clearTimeout(timer);
    timer = setTimeout(ask, ASK_AFTER_MS);
  }

  async function open(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      const audio_format = { encoding: "pcm_s16le", sample_rate: Number(rate.value), channels: 1 };
      const ends = silence.value === "" ? {} : { silence_timeout_seconds: Number(silence.value) };
      const body = { ...question(), audio_format, resumable: about.resumable && ticked(resumable), ...ends };
      const session = await api.post("v1/sessions", body, { "Idempotency-Key": key });
      shared.setCall(new Call(api, session));
      location.hash = "#/call";
    } catch (error) {
      fill(told, alarm(error.body?.verdict ? onRecord(error) : error));
      if (error instanceof Problem) key = onceKey(); // without an answer it may have been carried out
    } finally {
      button.disabled = false;
    }
  }

  ask();
  return {
    title: "New call",
    content: element(
      "div",
      { class: "narrow" },
      element("h1", {}, "New call"),
      element("p", { class: "lead" }, "Your microphone, through this browser. It is asked for when you begin to speak."),
      element(
        "form",
        { class: "card", onsubmit: open, oninput: changed },
        field("Project", project),
        element("div", { class: "pair" }, field("Speech to text", engine), field("Sound", rate)),
        element(
          "fieldset",
          {},
          element("legend", {}, "Options"),
          recording,
          sensitive,
          access,
          about.resumable ? resumable : null,
        ),
        field("Silence timeout, in seconds", silence, "The call ends when nobody speaks for so long. Empty: the setting of the server."),
        field("Admin token", admin, "Only for calls of a high risk tier; sent with this request and not kept."),
        element("h2", { class: "small" }, "Policy verdict"),
        explained,
        told,
        button,
      ),
    ),
    leave() {
      turn += 1;
      clearTimeout(timer);
    },
  };
}

/** One call a page: it has one microphone. */
function busyView() {
  return {
    title: "New call",
    content: [
      element("h1", {}, "New call"),
      element("p", { class: "lead" }, "This page has a call in progress. End it first, or open another tab."),
      element("a", { class: "button primary", href: "#/call" }, "To the call"),
    ],
  };
}
