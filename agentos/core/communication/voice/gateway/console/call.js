/**
 * A call of this page: microphone and stream, and what they have told so far. It goes on while other views are shown, and another
 * page of the same tab, as after a reload, can take it up again.
 */

import { Microphone, Phase, VoiceStream } from "./agentos-voice.js";
import { Story } from "./story.js";

const LEFT = "agentos-voice-call"; // in sessionStorage: gone with the tab
const MARK_MS = 1000; // between two bookmarks

/** What a page of this tab left of a call, if it is not over: `{session_id, bookmark}`. */
export function callThatWasLeft() {
  try {
    return JSON.parse(sessionStorage.getItem(LEFT));
  } catch {
    return null;
  }
}

/** Nobody takes it up again. */
export function forgetTheCall() {
  sessionStorage.removeItem(LEFT);
}

/** Fires `change` when anything but the level changed, and `level` with `{rms, peak}` in dBFS. */
export class Call extends EventTarget {
  session;
  microphone = { state: "off", error: null, muted: false, interrupted: false, label: "" }; // off, starting, on, stopping
  connection = { phase: "connecting", code: null, reason: "" };
  gaps = [];
  ending = false;

  #api;
  #stream;
  #device = null;
  #markedMs = 0;
  #leave = () => this.#mark();

  /** @param {object} [left] what another page left of it, with the `events` that are known of the session */
  constructor(api, session, left = null) {
    super();
    this.#api = api;
    this.session = session;
    this.story = new Story(session.state);
    for (const event of left?.events ?? []) this.story.tell(event);
    const ticket = async () => (await api.post(`v1/sessions/${session.session_id}/stream-tickets`)).ticket;
    const bookmark = left === null ? null : { ...left.bookmark, events: left.events.at(-1)?.number ?? 0 };
    this.#stream = new VoiceStream({ url: api.streamUrl, ticket, format: session.audio_format, bookmark, mediaMs: performance.now() });
    this.#listen("phase", (detail) => {
      this.connection = detail;
      if (!this.over) return;
      this.stopMicrophone();
      this.#noMarks();
      if (detail.phase === Phase.FAILED) this.#askHowItEnded();
    });
    this.#listen("welcome", ({ state }) => {
      this.story.state = state;
    });
    this.#listen("event", (event) => this.story.tell(event));
    this.#listen("gap", (gap) => this.#gap(gap));
    this.#listen("progress", () => {
      if (Date.now() - this.#markedMs > MARK_MS) this.#mark();
    });
    addEventListener("pagehide", this.#leave);
    this.#stream.done.then(
      ({ state, reason }) => {
        if (this.story.state !== state) this.story.move(state, Date.now());
        this.story.end(reason);
        this.#changed();
      },
      () => {},
    );
    this.#stream.start();
  }

  /** Whether neither audio nor news will come any more. */
  get over() {
    return this.connection.phase === Phase.ENDED || this.connection.phase === Phase.FAILED;
  }

  /** Seconds of what was captured that never got into the session. */
  get unsent() {
    const { waiting } = this.progress;
    return this.over ? waiting / 50 : 0;
  }

  /** Frames captured, received, durable, waiting, lost; and how often it was connected. */
  get progress() {
    return this.#stream.progress;
  }

  async startMicrophone() {
    if (this.#device !== null || this.over || this.ending) return;
    const device = new Microphone({ sampleRate: this.session.audio_format.sample_rate });
    this.#device = device;
    this.#microphone({ state: "starting", error: null });
    device.addEventListener("audio", ({ detail }) => this.#stream.send(detail.samples, detail.mediaMs));
    device.addEventListener("level", ({ detail }) => this.dispatchEvent(new CustomEvent("level", { detail })));
    device.addEventListener("muted", ({ detail }) => this.#microphone(detail));
    device.addEventListener("interrupted", ({ detail }) => this.#microphone(detail));
    device.addEventListener("lost", ({ detail }) => {
      this.#device = null;
      this.#microphone({ state: "off", error: detail, interrupted: false });
    });
    try {
      await device.start();
      if (this.#device === device && (device.running || device.interrupted)) this.#microphone({ state: "on", label: device.label });
    } catch (error) {
      if (this.#device !== device) return;
      this.#device = null;
      this.#microphone({ state: "off", error });
    }
  }

  async stopMicrophone() {
    const device = this.#device;
    if (device === null) return;
    this.#microphone({ state: "stopping" });
    await device.stop();
    this.#device = null;
    this.#microphone({ state: "off", interrupted: false });
  }

  /** No more is said: what is left is sent, and the session stops. */
  async end() {
    this.ending = true;
    const mediaMs = this.microphone.interrupted ? performance.now() : undefined; // up to here nothing was captured
    this.#changed();
    await this.stopMicrophone();
    this.#stream.finish({ mediaMs });
    this.#changed();
  }

  /** Let go of it; the session stays for a while. */
  close() {
    this.stopMicrophone();
    this.#stream.close();
    this.#noMarks();
  }

  /** Note what another page needs, should this one go away. */
  #mark() {
    const { bookmark } = this.#stream;
    if (bookmark === null || this.over || this.ending) return;
    this.#markedMs = Date.now();
    sessionStorage.setItem(LEFT, JSON.stringify({ session_id: this.session.session_id, bookmark }));
  }

  #noMarks() {
    removeEventListener("pagehide", this.#leave);
    forgetTheCall();
  }

  /** The stream failed; the session may have ended for a reason of its own. */
  async #askHowItEnded() {
    try {
      const { state, result } = await this.#api.get(`v1/sessions/${this.session.session_id}`);
      if (result === null) return;
      this.story.end(result.reason);
      this.story.move(state, Date.parse(result.stopped_at));
      this.#changed();
    } catch {
      // the view says that the call was lost; more is not known
    }
  }

  #gap({ first, count, reason }) {
    const last = this.gaps.at(-1);
    if (last?.reason === reason && last.first + last.count === first) last.count += count;
    else this.gaps.push({ first, count, reason });
  }

  #microphone(news) {
    this.microphone = { ...this.microphone, ...news };
    this.#changed();
  }

  #listen(name, act) {
    this.#stream.addEventListener(name, ({ detail }) => {
      act(detail);
      this.#changed();
    });
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
