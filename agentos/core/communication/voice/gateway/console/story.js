/** What a session's events tell, put together: its state and how it got there, the words, the level, what went wrong. */

const TROUBLES = 50;

export class Story {
  state;
  history = []; // {state, atMs}, oldest first
  finals = []; // {number, text, start_ms, end_ms}
  partial = "";
  heard = null; // {level_dbfs, peak_dbfs} as the server measured it last
  troubles = []; // {text, atMs}
  reason = null; // why it ended

  /** @param {string} state where the session stands before its first event is known */
  constructor(state) {
    this.state = state;
  }

  /** Whether nothing follows any more. */
  get over() {
    return this.reason !== null;
  }

  /** Take an event in. */
  tell({ number, event, timestamp_ms, payload }) {
    switch (event) {
      case "session_started":
      case "state_changed":
        this.move(payload.state, timestamp_ms);
        break;
      case "session_stopped":
        this.move("stopped", timestamp_ms);
        this.end(payload.reason);
        break;
      case "stt_partial":
        this.partial = payload.text;
        break;
      case "stt_final":
        this.partial = "";
        this.finals.push({ number, ...payload });
        break;
      case "audio_received":
        this.heard = payload;
        break;
      case "stt_fallback":
        this.trouble("The requested speech-to-text engine is not available; another one transcribes the call.", timestamp_ms);
        break;
      case "error":
        this.trouble(troubleOf(payload), timestamp_ms);
        break;
    }
  }

  /** Nothing follows any more. Words that were shown and are in no transcript stay, as what they are, when nobody finished them. */
  end(reason) {
    this.reason ??= reason;
    if (this.reason === "stopped") this.partial = "";
  }

  /** Something went wrong that a person should know. */
  trouble(text, atMs) {
    this.troubles.push({ text, atMs });
    if (this.troubles.length > TROUBLES) this.troubles.shift();
  }

  /** It stands in this state since then. */
  move(state, atMs) {
    this.state = state;
    if (this.history.at(-1)?.state !== state) this.history.push({ state, atMs });
  }
}

const MISMATCHES = {
  too_much_audio: "far more sound came than there was time for: its rate may be another one than that of the session",
  too_little_audio: "far less sound came than there was time for: its rate may be another one than that of the session",
};

function troubleOf({ part, reason, frames }) {
  if (MISMATCHES[reason] !== undefined) return `${part}: ${MISMATCHES[reason]}`;
  const where = part === undefined ? "" : `${part}: `;
  const seconds = frames === undefined ? "" : `, ${(frames / 50).toFixed(2)} s of audio`;
  return `${where}${reason ?? "something failed"}${seconds}`;
}
