/** A call of this page: microphone and stream, and what they have told so far. It goes on while other views are shown. */

import { Microphone, Phase, VoiceStream } from "./agentos-voice.js";
import { Story } from "./story.js";

/** Fires `change` when anything but the level changed, and `level` with `{rms, peak}` in dBFS. */
export class Call extends EventTarget {
  session;
  microphone = { state: "off", error: null, muted: false, label: "" }; // off, starting, on, stopping
  connection = { phase: "connecting", code: null, reason: "" };
  gaps = [];
  ending = false;

  #stream;
  #device = null;

  constructor(api, session) {
    super();
    this.session = session;
    this.story = new Story(session.state);
    const ticket = async () => (await api.post(`v1/sessions/${session.session_id}/stream-tickets`)).ticket;
    this.#stream = new VoiceStream({ url: api.streamUrl, ticket, format: session.audio_format });
    this.#listen("phase", (detail) => {
      this.connection = detail;
      if (detail.phase === Phase.FAILED || detail.phase === Phase.ENDED) this.stopMicrophone();
    });
    this.#listen("welcome", ({ state }) => {
      this.story.state = state;
    });
    this.#listen("event", (event) => this.story.tell(event));
    this.#listen("gap", (gap) => this.gaps.push(gap));
    this.#listen("progress", () => {}); // asked for by who draws
    this.#stream.done.then(
      ({ state, reason }) => {
        if (this.story.state !== state) this.story.move(state, Date.now());
        this.story.reason ??= reason;
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
    device.addEventListener("lost", ({ detail }) => {
      this.#device = null;
      this.#microphone({ state: "off", error: detail });
    });
    try {
      await device.start();
      if (this.#device === device && device.running) this.#microphone({ state: "on", label: device.label });
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
    this.#microphone({ state: "off" });
  }

  /** No more is said: what is left is sent, and the session stops. */
  async end() {
    this.ending = true;
    this.#changed();
    await this.stopMicrophone();
    this.#stream.end();
    this.#changed();
  }

  /** Let go of it; the session stays for a while. */
  close() {
    this.stopMicrophone();
    this.#stream.close();
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
