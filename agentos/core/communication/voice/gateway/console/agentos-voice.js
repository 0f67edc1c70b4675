/**
 * The client of agentos-voice in the browser: `VoiceStream` sends audio to a session over `agentos-voice.v1` and comes back
 * after every cut, `Microphone` captures audio in the form that a session wants.
 *
 * It is one file on purpose: a page imports one address, or takes one copy along, and needs no package and no build. The
 * AudioWorklet loads the same file; see the end.
 *
 * `ClientStream` holds the rules, without sockets, clocks or chance: which frames go where, who may say what when. It is
 * `machines/stream/ends.py` of the server, step by step, so that what was explored there holds here. Frames are 20 ms of audio,
 * counted from 0 through all connections of a session; a limit is an exclusive upper bound.
 */

/** What the WebSocket is asked to speak. */
export const SUBPROTOCOL = "agentos-voice.v1";

/** How long a frame is. */
export const FRAME_MS = 20;

/** The highest number of a frame. */
export const MAX_FRAME = 2 ** 32 - 1;

const HEADER_BYTES = 12;
const AUDIO = 1;
const LAST = 1;

// --- messages --------------------------------------------------------------------------------------------------------

/** The close codes of a stream. */
export const StreamCode = Object.freeze({
  DONE: 1000,
  GOING_AWAY: 1001,
  LOST: 1006, // never sent: the connection broke
  FAULT: 1011,
  MALFORMED: 4400,
  UNAUTHENTICATED: 4401,
  ENDED: 4404,
  NO_COMMON_FORMAT: 4406,
  TOO_SLOW: 4408,
  FENCED: 4409,
  REPLAYED: 4410,
  OUT_OF_ORDER: 4411,
  WRONG_SIZE: 4412,
  TOO_LARGE: 4413,
  BEYOND_LIMIT: 4414,
  TOO_MANY: 4429,
  UNAVAILABLE: 4503,
});

/** The close codes after which the session stands as it was, and the client comes back. */
export const COME_BACK = Object.freeze(
  new Set([
    1005,
    1012,
    1013,
    StreamCode.GOING_AWAY,
    StreamCode.LOST,
    StreamCode.FAULT,
    StreamCode.TOO_SLOW,
    StreamCode.TOO_MANY,
    StreamCode.UNAVAILABLE,
  ]),
);

/** What the server sent breaks the protocol. `code` is the close code, `message` says what it was. */
export class StreamViolation extends Error {
  name = "StreamViolation";

  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}

const isText = (value) => typeof value === "string";
const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isInteger = (value) => Number.isSafeInteger(value);
const isFrame = (value) => isInteger(value) && value >= 0 && value <= MAX_FRAME;
const isNatural = (value) => isInteger(value) && value >= 0;
const isPositive = (value) => isInteger(value) && value >= 1;
const isDurable = (value) => value === null || isFrame(value); // null: the session keeps no audio
const isReason = (value) => isText(value) && [...value].length >= 1 && [...value].length <= 64;
const isRun = (value) =>
  Array.isArray(value) && value.length === 3 &&
  isFrame(value[0]) && isPositive(value[1]) && value[1] <= MAX_FRAME && isReason(value[2]);
const isLost = (value) => Array.isArray(value) && value.every(isRun);
const isState = (value) => ["created", "active", "stopping", "stopped"].includes(value);
const isFormat = (value) =>
  isRecord(value) &&
  Object.keys(value).every((name) => ["encoding", "sample_rate", "channels"].includes(name)) &&
  ["pcm_s16le", "mulaw", "opus"].includes(value.encoding) &&
  isInteger(value.sample_rate) && value.sample_rate >= 8000 && value.sample_rate <= 48000 &&
  (value.channels === undefined || (isPositive(value.channels) && value.channels <= 8));

/** The server's messages by type, and what each field must be. All fields are there but those in `OPTIONAL`, and no others. */
const FROM_SERVER = {
  welcome: {
    session_id: isText,
    resume: isText,
    format: isFormat,
    expected: isFrame,
    durable: isDurable,
    limit: isFrame,
    state: isState,
    verdict: isRecord,
    heartbeat_ms: isPositive,
    max_message_bytes: isPositive,
    lost: isLost,
  },
  ack: { received: isFrame, durable: isDurable, limit: isFrame, lost: isLost },
  event: { number: isInteger, event: isText, timestamp_ms: isNatural, payload: isRecord },
  ping: { id: isInteger },
  bye: { state: isState, reason: isText },
};
const OPTIONAL = new Set(["lost"]); // nothing was

/**
 * A text message of the server.
 * @throws {StreamViolation} for anything that is none
 */
export function readFromServer(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    throw new StreamViolation(StreamCode.MALFORMED, "not JSON");
  }
  const shape = isRecord(message) && Object.hasOwn(FROM_SERVER, message.type) ? FROM_SERVER[message.type] : null;
  if (shape === null) throw new StreamViolation(StreamCode.MALFORMED, "a message of no type that a server sends");
  for (const [name, isRight] of Object.entries(shape)) {
    const missing = !Object.hasOwn(message, name);
    if (missing ? !OPTIONAL.has(name) : !isRight(message[name])) {
      throw new StreamViolation(StreamCode.MALFORMED, `${message.type} without a right ${name}`);
    }
  }
  for (const name of Object.keys(message)) {
    if (name !== "type" && !Object.hasOwn(shape, name)) {
      throw new StreamViolation(StreamCode.MALFORMED, `${message.type} has no ${name}`);
    }
  }
  return message;
}

/** A binary message: frames from `first` on, captured from `mediaMs` on; `last` when the audio ends with them. */
export function writeAudio({ first, mediaMs, last }, frames) {
  const message = new Uint8Array(frames.reduce((size, frame) => size + frame.length, HEADER_BYTES));
  const header = new DataView(message.buffer, 0, HEADER_BYTES);
  header.setUint8(0, AUDIO);
  header.setUint8(1, last ? LAST : 0);
  header.setUint16(2, frames.length);
  header.setUint32(4, first);
  header.setUint32(8, mediaMs);
  let at = HEADER_BYTES;
  for (const frame of frames) {
    message.set(frame, at);
    at += frame.length;
  }
  return message;
}

// --- the rules -------------------------------------------------------------------------------------------------------

/** Where a stream stands: without a connection, saying hello, open, ended as it should, or failed for good. */
export const Phase = Object.freeze({
  AWAY: "away",
  GREETING: "greeting",
  OPEN: "open",
  ENDED: "ended",
  FAILED: "failed",
});

const SILENT_BEATS = 2; // heartbeats without a word from the server, then the connection counts as half-open

/**
 * A stream at the client, through all its connections; the rules alone.
 *
 * It has numbered the frames below `next`, and keeps those from `kept` on, `held` of them and at most `capacity`. The runs in
 * `gaps` were never captured, `skipped` frames in all; those that the server has for good are forgotten, `passed` frames. Frames
 * below `sent` went out on this connection. Those below `durable` are safe at the server, or it has declared them lost: so many are `missed`, all below
 * `missedUpto`. `lost` fell off the ring before they were sent. `credential` is what the next hello carries: a ticket, and a
 * resume token as soon as the stream is `resuming`. Until then frames are numbered from 0; a session that had audio before from
 * somebody else gives them the numbers behind it.
 */
export class ClientStream {
  constructor(capacity, credential) {
    this.capacity = capacity;
    this.credential = credential;
    this.phase = Phase.AWAY;
    this.resuming = false;
    this.kept = 0;
    this.next = 0;
    this.sent = 0;
    this.durable = 0;
    this.limit = 0;
    this.finished = false;
    this.short = false;
    this.endSent = false;
    this.attempt = 0;
    this.events = 0;
    this.heard = false;
    this.silent = 0;
    this.lost = 0;
    this.missed = 0;
    this.missedUpto = 0;
    this.held = 0;
    this.gaps = []; // [first, count] of each
    this.skipped = 0;
    this.passed = 0;
  }

  /** So many more frames were captured; how many of the oldest fell off the ring for it. Throws after the end. */
  capture(count) {
    if (this.finished) throw new RangeError("the stream was finished: no more audio");
    this.next += count;
    this.held += count;
    const fell = Math.max(0, this.held - this.capacity);
    if (fell > 0) {
      this.held -= fell;
      this.kept = this.#behind(this.kept, fell);
    }
    return fell;
  }

  /** So many frames passed by that were not captured. Throws after the end. */
  skip(count) {
    if (this.finished) throw new RangeError("the stream was finished: no more audio");
    const last = this.gaps.at(-1);
    if (last !== undefined && last[0] + last[1] === this.next) last[1] += count;
    else this.gaps.push([this.next, count]);
    this.next += count;
    this.skipped += count;
  }

  /**
   * How many of the frames from `first` on and below `upto` were captured; of those that the server has for good, the gaps are
   * forgotten.
   */
  captured(first, upto) {
    const within = ([at, count]) => Math.max(0, Math.min(upto, at + count) - Math.max(first, at));
    return upto - first - this.gaps.reduce((sum, gap) => sum + within(gap), 0);
  }

  /** The number behind so many captured frames from this one on. */
  #behind(number, count) {
    for (const [first, gap] of this.gaps) {
      if (number < first) {
        const passed = Math.min(count, first - number);
        number += passed;
        count -= passed;
      }
      if (count === 0) return number;
      number = Math.max(number, first + gap);
    }
    return number + count;
  }

  /** No more frames are captured; `short` says that the last one is less than a whole frame. */
  finish({ short = false } = {}) {
    this.finished = true;
    this.short = short;
  }

  /** A connection is there: the message that it begins with. */
  hello(formats) {
    this.phase = Phase.GREETING;
    this.heard = false;
    this.silent = 0;
    this.attempt += 1;
    const hello = { type: "hello", formats, attempt: this.attempt };
    if (!this.resuming) return { ...hello, ticket: this.credential };
    const { kept, next, events, durable } = this;
    return { ...hello, resume: this.credential, first: kept, next, events, durable };
  }

  /**
   * The connection is gone, with this close code: the stream is away and comes back, or has failed for good. One that is not
   * `resuming` yet needs a new ticket, as a `credential`, to come back.
   */
  closed(code) {
    if (this.phase === Phase.ENDED || this.phase === Phase.FAILED) return;
    this.phase = COME_BACK.has(code) ? Phase.AWAY : Phase.FAILED;
  }

  /**
   * A message of the server: a pong is to be sent, an event to be handed on; a list is of the frames `[first, count, reason]`
   * that are lost there and were not told before. Of others nothing.
   * @throws {StreamViolation}
   */
  receive(message) {
    this.heard = true;
    switch (message.type) {
      case "ack":
        if (message.received > this.sent) {
          throw new StreamViolation(StreamCode.OUT_OF_ORDER, "the server has frames that were not sent");
        }
        return this.#know(message.received, message);
      case "ping":
        return { type: "pong", id: message.id };
      case "event":
        if (message.number <= this.events) return null;
        this.events = message.number;
        return message;
      case "bye":
        this.phase = Phase.ENDED;
        return null;
      default:
        return this.#welcome(message);
    }
  }

  /**
   * What goes out next: a run of at most `most` frames, a gap, the end, or null when nothing may. What is given counts as sent.
   */
  toSend(most) {
    if (this.phase !== Phase.OPEN || this.endSent) return null;
    const from = this.sent;
    let upto = this.next;
    for (const [first, count] of this.gaps) {
      if (from < first) {
        upto = first;
        break;
      }
      if (from < first + count) {
        this.sent = first + count;
        return { type: "gap", first: from, count: this.sent - from, reason: "capture" };
      }
    }
    if (from < this.kept) {
      this.sent = Math.min(upto, this.kept);
      this.lost += this.sent - from;
      return { type: "gap", first: from, count: this.sent - from, reason: "ring" };
    }
    upto = Math.min(upto, this.limit, from + most);
    if (this.sent < upto) {
      const last = this.finished && this.short && upto === this.next;
      const run = { type: "run", first: this.sent, count: upto - this.sent, last };
      this.sent = upto;
      return run;
    }
    if (this.finished && this.sent === this.next) {
      this.endSent = true;
      return { type: "end", upto: this.next };
    }
    return null;
  }

  /** A heartbeat of the server has passed: whether the connection is still worth keeping. */
  beat() {
    this.silent = this.heard ? 0 : this.silent + 1;
    this.heard = false;
    return this.silent <= SILENT_BEATS;
  }

  #welcome(message) {
    if (this.phase !== Phase.GREETING) throw new StreamViolation(StreamCode.MALFORMED, "a second welcome");
    if (!this.resuming) {
      this.kept += message.expected;
      this.next += message.expected;
      this.gaps = this.gaps.map(([first, count]) => [first + message.expected, count]);
      this.missedUpto = message.expected;
    } else if (message.expected > this.next) {
      throw new StreamViolation(StreamCode.OUT_OF_ORDER, "the server expects a frame that was never captured");
    }
    this.phase = Phase.OPEN;
    this.resuming = true;
    this.credential = message.resume;
    this.sent = message.expected;
    this.limit = message.limit;
    this.endSent = false;
    return this.#know(message.expected, message);
  }

  #know(received, { durable, limit, lost = [] }) {
    const fresh = lost
      .map(([first, count, reason]) => [Math.max(first, this.missedUpto), first + count, reason])
      .filter(([first, upto]) => first < upto)
      .map(([first, upto, reason]) => [first, upto - first, reason]);
    if (fresh.length > 0 && fresh.at(-1)[0] + fresh.at(-1)[1] > received) {
      throw new StreamViolation(StreamCode.OUT_OF_ORDER, "the server lost frames that it does not have");
    }
    for (const [first, count] of fresh) {
      this.missed += count;
      this.missedUpto = first + count;
    }
    if (durable !== null) this.durable = Math.max(this.durable, Math.min(durable, received));
    this.limit = Math.max(this.limit, limit);
    const safe = Math.min(durable === null ? received : this.durable, this.sent);
    if (safe > this.kept) {
      this.held -= this.captured(this.kept, safe);
      this.kept = safe;
    }
    while (this.gaps.length > 0 && this.gaps[0][0] + this.gaps[0][1] <= safe) this.passed += this.gaps.shift()[1];
    return fresh.length > 0 ? fresh : null;
  }
}

// --- the stream ------------------------------------------------------------------------------------------------------

const RING_SECONDS = 60;
const PATIENCE_SECONDS = 300; // then nobody waits for us any longer
const GREETING_MS = 10_000; // a connection that is not open by then is none
const FIRST_PAUSE_MS = 250; // doubles with every failure, up to
const LONGEST_PAUSE_MS = 10_000;
const BUSY_FAILURES = 3; // a server that has no room is asked later than one that was cut off
const JITTER_MS = 2 * FRAME_MS; // of media time
const SLEW = 0.001; // how much faster or slower another clock may be; sound cards are ten times as exact
const MOST_FRAMES = 50; // a second of audio in one message
const MOST_BUFFERED_BYTES = 262_144; // that the socket may hold; the ring is the better place
const BUFFER_PAUSE_MS = 50;

/** A stream that is over before its end. `code` is the close code of its last connection, `message` the server's reason. */
export class StreamFailed extends Error {
  name = "StreamFailed";

  constructor(code, reason) {
    super(reason || `the connection was closed with code ${code}`);
    this.code = code;
  }
}

/**
 * Sends audio to a session, and tells what happens there, through any number of connections.
 *
 * Audio waits in a ring until it is durable at the server, or received where the session keeps none; after a cut it is sent
 * again from where the server stands. What falls off a full ring is declared to the session as a gap. Events, each a
 * `CustomEvent` with a `detail`:
 *
 * - `phase`: `{phase, code, reason}`, one of `Phase`; `code` and `reason` of the close when there was one
 * - `welcome`: the server's message, after every connect: `session_id`, `state`, `verdict`, `format`, …
 * - `event`: an event of the session: `{number, event, timestamp_ms, payload}`, each once and in order
 * - `gap`: `{first, count, reason}`, frames that are lost for good, here (`ring`; `capture` where there never were any) or at
 *   the server (`disk_full`, …)
 * - `progress`: what `progress` returns, whenever the server has told how far it is
 */
export class VoiceStream extends EventTarget {
  #url;
  #ticket;
  #format;
  #socket = null;
  #newSocket;
  #random;
  #rules;
  #ring = []; // {bytes, mediaMs} of each frame from `rules.kept` on
  #sampleBytes; // of all channels
  #silence;
  #part; // of the frame that is being filled
  #filled = 0;
  #base = 0; // the frames that another page had
  #frames = 0; // that were captured here
  #mediaMs = 0; // of the frame that is being filled, since the first
  #beganMs = null; // on the caller's clock, of a first frame that all that were numbered here follow on
  #most = 1;
  #received = 0;
  #keeps = true; // the session does, what it gets
  #connects = 0;
  #failures = 0;
  #awaySince = null;
  #patienceSeconds;
  #timers = { greeting: 0, beat: 0, again: 0, pump: 0 };
  #over = false;
  #settle;
  #online = () => this.#hurry();

  /**
   * @param {object} options
   * @param {string|URL} options.url of the stream, `ws:` or `wss:`; nothing secret is in it
   * @param {() => Promise<string>} options.ticket a new ticket for the session, asked for until the stream is open for the first
   *   time. When it rejects with a `TypeError`, as `fetch` does without a network, it is asked again later.
   * @param {{encoding: "pcm_s16le"|"mulaw", sample_rate: number, channels?: number}} [options.format] of the session's audio
   * @param {number} [options.ringSeconds] of audio that is kept for sending it (again)
   * @param {number} [options.patienceSeconds] without a connection, then the stream has failed
   * @param {(url: string|URL, protocol: string) => WebSocket} [options.newSocket]
   * @param {() => number} [options.random] from 0 to 1, for the pauses between connections
   * @param {object} [options.bookmark] of a stream that another page had, to go on with it; `ticket` is not asked then. What that
   *   page had and could not send is declared as a gap
   * @param {number} [options.mediaMs] with a bookmark: now, on the clock of `send`, so that what was not captured since is declared
   */
  constructor({
    url,
    ticket,
    format = { encoding: "pcm_s16le", sample_rate: 16_000, channels: 1 },
    ringSeconds = RING_SECONDS,
    patienceSeconds = PATIENCE_SECONDS,
    newSocket = (address, protocol) => new WebSocket(address, protocol),
    random = Math.random,
    bookmark = null,
    mediaMs,
  }) {
    super();
    const sampleBytes = { pcm_s16le: 2, mulaw: 1 }[format.encoding];
    const samples = (format.sample_rate * FRAME_MS) / 1000;
    if (sampleBytes === undefined) throw new RangeError(`can't send ${format.encoding}: pcm_s16le or mulaw`);
    if (!isFormat(format) || !Number.isInteger(samples)) throw new RangeError("not a format of a session");
    this.#url = url;
    this.#ticket = ticket;
    this.#format = format;
    this.#newSocket = newSocket;
    this.#random = random;
    this.#patienceSeconds = patienceSeconds;
    this.#sampleBytes = sampleBytes * (format.channels ?? 1);
    this.#silence = format.encoding === "mulaw" ? 0xff : 0;
    this.#part = new Uint8Array(samples * this.#sampleBytes);
    this.#rules = new ClientStream(Math.max(1, Math.round((ringSeconds * 1000) / FRAME_MS)), "");
    if (bookmark !== null) this.#goOn(bookmark, mediaMs);
    /** How it ends: `{state, reason}` of the session, or a rejection with `StreamFailed` or what `ticket` rejected with. */
    this.done = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.done.catch(() => {}); // whoever does not ask is told by `phase`
  }

  /** Where the stream stands, one of `Phase`. */
  get phase() {
    return this.#rules.phase;
  }

  /**
   * How far it is, in frames: `captured` so far, `waiting` to be sent, `received` by the session and `durable` there (numbers of
   * the session; null when it keeps no audio), `lost` for good, here or there; and how often it was `connected`.
   */
  get progress() {
    const { next, sent, durable, lost, missed } = this.#rules;
    const waiting = sent < next ? this.#rules.captured(sent, next) : 0;
    return {
      captured: this.#frames,
      waiting,
      received: this.#received,
      durable: this.#keeps ? durable : null,
      lost: lost + missed,
      connected: this.#connects,
    };
  }

  /**
   * What another page of this origin needs to go on with this stream when this one is gone, or null before it was open for the
   * first time. It opens the session's stream: keep it in `sessionStorage`, and nowhere else.
   */
  get bookmark() {
    const { resuming, credential, attempt, next, events, durable } = this.#rules;
    return resuming ? { resume: credential, attempt, next, events, durable, atMs: Date.now() } : null;
  }

  /** Connect. Audio may be sent before, and at any time after. */
  start() {
    if (this.#awaySince !== null || this.#connects > 0 || this.#over) return;
    globalThis.addEventListener?.("online", this.#online);
    this.#connect();
  }

  /**
   * Send audio of the stream's format, of any length.
   * @param {ArrayBuffer|ArrayBufferView} audio
   * @param {number} [mediaMs] when its first sample was captured, on a clock of the caller's that never falls: a pause of more
   *   than 40 ms is declared as a gap of its length. Without it the audio is taken to follow on what was sent before
   */
  send(audio, mediaMs) {
    if (this.#over) return;
    if (this.#rules.finished) throw new RangeError("the stream was finished: no more audio");
    const bytes = ArrayBuffer.isView(audio)
      ? new Uint8Array(audio.buffer, audio.byteOffset, audio.byteLength)
      : new Uint8Array(audio);
    let startMs = mediaMs;
    if (mediaMs !== undefined) this.#catchUp(mediaMs, (bytes.length / this.#part.length) * FRAME_MS);
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + this.#part.length - this.#filled);
      if (this.#filled === 0) this.#clock(startMs);
      this.#part.set(piece, this.#filled);
      this.#filled += piece.length;
      at += piece.length;
      if (mediaMs !== undefined) startMs = mediaMs + (at / this.#part.length) * FRAME_MS;
      if (this.#filled === this.#part.length) this.#capture(this.#part);
    }
    this.#pump();
  }

  /**
   * No more audio: what is left is sent, in whole samples, and the session stops. Returns `done`.
   * @param {object} [options]
   * @param {number} [options.mediaMs] when it ended, on the clock of `send`: what was not captured before is declared
   */
  finish({ mediaMs } = {}) {
    if (!this.#rules.finished && !this.#over) {
      if (mediaMs !== undefined) this.#catchUp(mediaMs, 0);
      this.#filled -= this.#filled % this.#sampleBytes;
      const short = this.#filled > 0;
      if (short) this.#capture(this.#part.subarray(0, this.#filled));
      this.#rules.finish({ short });
      this.#pump();
    }
    return this.done;
  }

  /** Leave without an end. The session goes on without us until it is stopped, or nobody has come back for too long. */
  close() {
    this.#closed(StreamCode.DONE, "left by this program");
  }

  /** No more was captured since the bookmark than there was time for: the frames behind that are new. */
  #goOn({ resume, attempt, next, events, durable, atMs }, mediaMs) {
    const passed = Math.ceil(Math.max(0, Date.now() - atMs) / FRAME_MS) + 1;
    const kept = next + passed;
    Object.assign(this.#rules, { resuming: true, credential: resume, attempt, events, durable, missedUpto: durable });
    Object.assign(this.#rules, { next: kept, kept, sent: kept });
    this.#base = kept;
    this.#mediaMs = kept * FRAME_MS;
    this.#beganMs = mediaMs === undefined ? null : mediaMs - this.#mediaMs;
  }

  // --- audio

  /** Declare what was not captured before audio of `lengthMs` that begins at `mediaMs`; slow clocks are followed. */
  #catchUp(mediaMs, lengthMs) {
    const numbered = this.#base + this.#frames + this.#rules.skipped + this.#filled / this.#part.length;
    this.#beganMs ??= mediaMs - numbered * FRAME_MS;
    const aheadMs = mediaMs - this.#beganMs - numbered * FRAME_MS;
    if (aheadMs <= JITTER_MS) {
      this.#beganMs += Math.sign(aheadMs) * Math.min(Math.abs(aheadMs), lengthMs * SLEW);
      return;
    }
    let pause = Math.floor(aheadMs / FRAME_MS);
    if (this.#filled > 0) {
      this.#part.fill(this.#silence, this.#filled); // the rest of a frame that was begun
      this.#capture(this.#part);
      pause -= 1;
    }
    this.#rules.skip(pause);
  }

  #clock(mediaMs) {
    const follows = this.#frames === 0 ? this.#mediaMs : this.#mediaMs + FRAME_MS;
    const now = mediaMs === undefined ? follows : mediaMs - this.#beganMs;
    this.#mediaMs = Math.min(Math.max(this.#mediaMs, Math.round(now)), MAX_FRAME);
  }

  #capture(bytes) {
    this.#rules.capture(1);
    this.#ring.push({ bytes: bytes.slice(), mediaMs: this.#mediaMs });
    this.#frames += 1;
    this.#filled = 0;
    this.#trim();
  }

  #trim() {
    this.#ring.splice(0, this.#ring.length - this.#rules.held);
  }

  #pump() {
    clearTimeout(this.#timers.pump);
    for (;;) {
      if (this.#socket !== null && this.#socket.bufferedAmount > MOST_BUFFERED_BYTES) {
        this.#timers.pump = setTimeout(() => this.#pump(), BUFFER_PAUSE_MS);
        return;
      }
      const next = this.#rules.toSend(this.#most);
      if (next === null) return;
      this.#socket.send(next.type === "run" ? this.#audio(next) : JSON.stringify(next));
      if (next.type === "gap") this.#tell("gap", { first: next.first, count: next.count, reason: next.reason });
    }
  }

  #audio({ first, count, last }) {
    const from = this.#rules.captured(this.#rules.kept, first);
    const frames = this.#ring.slice(from, from + count);
    const { mediaMs } = frames[0];
    return writeAudio({ first, mediaMs, last }, frames.map((frame) => frame.bytes));
  }

  // --- connections

  async #connect() {
    this.#timers.again = 0;
    this.#awaySince ??= Date.now();
    if (!this.#rules.resuming) {
      try {
        this.#rules.credential = await within(GREETING_MS, this.#ticket());
      } catch (error) {
        if (this.#over) return;
        if (error instanceof TypeError) this.#later(StreamCode.LOST, "no ticket: the server can't be reached");
        else this.#fail(error, StreamCode.UNAUTHENTICATED, error.message);
        return;
      }
      if (this.#over) return;
    }
    let socket;
    try {
      socket = this.#newSocket(this.#url, SUBPROTOCOL);
    } catch (error) {
      this.#fail(error, StreamCode.LOST, error.message); // no such address, or the page's policy forbids it
      return;
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      socket.send(JSON.stringify(this.#rules.hello([this.#format])));
      this.#phase();
    };
    socket.onmessage = ({ data }) => this.#heard(data);
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
    this.#timers.greeting = setTimeout(() => this.#closed(StreamCode.LOST, "no answer"), GREETING_MS);
  }

  #heard(data) {
    try {
      const message = readFromServer(data);
      const answer = this.#rules.receive(message);
      this.#trim();
      if (message.durable !== undefined) this.#keeps = message.durable !== null;
      this.#after(message, answer);
      if (Array.isArray(answer)) for (const [first, count, reason] of answer) this.#tell("gap", { first, count, reason });
    } catch (error) {
      if (!(error instanceof StreamViolation)) throw error;
      this.#closed(error.code, error.message);
    }
  }

  #after(message, answer) {
    switch (message.type) {
      case "welcome":
        this.#opened(message);
        break;
      case "ack":
        this.#failures = 0;
        this.#awaySince = null;
        this.#received = message.received;
        this.#tell("progress", this.progress);
        break;
      case "ping":
        this.#socket.send(JSON.stringify(answer));
        break;
      case "event":
        if (answer !== null) {
          this.#awaySince = null;
          const { number, event, timestamp_ms, payload } = answer;
          this.#tell("event", { number, event, timestamp_ms, payload });
        }
        break;
      case "bye":
        if (this.#rules.endSent) this.#received = this.#rules.next;
        this.#leave(StreamCode.DONE);
        this.#settle.resolve({ state: message.state, reason: message.reason });
        this.#phase(StreamCode.DONE, message.reason);
        return;
    }
    this.#pump();
  }

  #opened(welcome) {
    clearTimeout(this.#timers.greeting);
    this.#connects += 1;
    this.#received = welcome.expected;
    const fitting = Math.floor((welcome.max_message_bytes - HEADER_BYTES) / this.#part.length);
    this.#most = Math.max(1, Math.min(MOST_FRAMES, fitting));
    this.#timers.beat = setInterval(() => {
      if (!this.#rules.beat()) this.#closed(StreamCode.LOST, "the server has been silent for too long");
      else this.#awaySince = null; // a connection that lasts counts, though nothing was said on it
    }, welcome.heartbeat_ms);
    this.#phase();
    this.#tell("welcome", welcome);
    this.#tell("progress", this.progress);
  }

  #closed(code, reason) {
    if (this.#over) return;
    this.#rules.closed(code);
    if (this.#rules.phase === Phase.AWAY) this.#later(code, reason);
    else this.#fail(new StreamFailed(code, reason), code, reason);
  }

  #later(code, reason) {
    this.#drop(code);
    this.#awaySince ??= Date.now();
    if (Date.now() - this.#awaySince > this.#patienceSeconds * 1000) {
      this.#fail(new StreamFailed(code, reason), code, reason);
      return;
    }
    if (code === StreamCode.TOO_MANY || code === StreamCode.UNAVAILABLE) {
      this.#failures = Math.max(this.#failures, BUSY_FAILURES);
    }
    const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#failures);
    this.#failures += 1;
    this.#timers.again = setTimeout(() => this.#connect(), pause * (0.5 + this.#random() / 2));
    this.#phase(code, reason);
  }

  /** There is a network again: don't wait. */
  #hurry() {
    if (this.#over || this.#socket !== null || this.#awaySince === null || this.#timers.again === 0) return;
    clearTimeout(this.#timers.again);
    this.#timers.again = 0;
    this.#connect();
  }

  #fail(error, code, reason) {
    this.#rules.phase = Phase.FAILED;
    this.#leave(code);
    this.#settle.reject(error);
    this.#phase(code, reason);
  }

  #leave(code) {
    this.#over = true;
    this.#drop(code);
    this.#ring = [];
    globalThis.removeEventListener?.("online", this.#online);
  }

  /** The socket is none any more, whether it knows that or not: a half-open one would take minutes to close. */
  #drop(code) {
    clearTimeout(this.#timers.greeting);
    clearInterval(this.#timers.beat);
    clearTimeout(this.#timers.again);
    clearTimeout(this.#timers.pump);
    this.#timers.again = 0;
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(code >= 3000 ? code : StreamCode.DONE);
  }

  #phase(code = null, reason = "") {
    this.#tell("phase", { phase: this.#rules.phase, code, reason });
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** What `promise` resolves to, unless it takes longer: then it is as if the network were not there. */
function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new TypeError("no answer in time")), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// --- the microphone --------------------------------------------------------------------------------------------------

const CAPTURE = "agentos-voice-capture";
const RESUME_MS = 1000; // between two requests to go on
const LATE_PIECES = 50; // a second: a page that is busy is late now and then, and not with every piece
const LATE_MS = 300;
const QUIET_DBFS = -100; // digital silence has no level; this is drawn for it

const GONE = "the microphone is gone: it was unplugged, or its permission was withdrawn";

const REFUSALS = {
  NotAllowedError: ["denied", "the microphone may not be used: allow it for this page in the browser's settings"],
  SecurityError: ["denied", "the microphone may not be used on this page"],
  NotFoundError: ["missing", "there is no microphone"],
  OverconstrainedError: ["missing", "that microphone is not there any more"],
  NotReadableError: ["busy", "the microphone can't be read: another program may have it"],
  AbortError: ["busy", "the microphone can't be read"],
};

/**
 * Why there is no sound. `kind` is `"denied"`, `"missing"`, `"busy"`, `"lost"` (it was unplugged, or permission was withdrawn),
 * `"unsupported"` (an old browser, or a page that is neither `https:` nor local) or `"failed"`; `message` says what to do.
 */
export class MicrophoneError extends Error {
  name = "MicrophoneError";

  constructor(kind, message, cause) {
    super(message, { cause });
    this.kind = kind;
  }
}

/**
 * Captures a microphone as mono PCM of 16 bit, at any rate.
 *
 * Events, each a `CustomEvent` with a `detail`:
 *
 * - `audio`: `{samples, mediaMs}`, 20 ms as an `Int16Array`, and when its first sample was captured, on the clock of
 *   `performance.now()`
 * - `level`: `{rms, peak}` of the same 20 ms, in dBFS, at least -100
 * - `muted`: `{muted}`, the system gives silence instead of sound, or sound again
 * - `interrupted`: `{interrupted}`, the browser gives no sound, as on a phone that rings, or sound again; it is asked to go on by
 *   itself, and what was not captured shows in `mediaMs`
 * - `lost`: a `MicrophoneError`; the microphone has been stopped
 */
export class Microphone extends EventTarget {
  #sampleRate;
  #constraints;
  #module;
  #stream = null;
  #context = null;
  #node = null;
  #turn = 0; // counts starts and stops: a start that another one follows is over
  #starting = null;
  #offsetMs = null; // from the context's clock to that of `performance.now()`
  #late = { leastMs: Infinity, pieces: 0 }; // how late pieces came by these clocks, at least
  #interrupted = false;
  #again = 0; // a timer
  #goOn = () => this.#resume();

  /**
   * @param {object} [options]
   * @param {number} [options.sampleRate] of the samples, in Hz
   * @param {string} [options.deviceId] which microphone; the system's own choice without it
   * @param {boolean} [options.processing] whether the browser takes away echo and noise and evens the level; engines hear better
   *   without, and a page that plays sound while it listens needs it
   * @param {string|URL} [options.module] where this very file is served
   */
  constructor({ sampleRate = 16_000, deviceId, processing = false, module = import.meta.url } = {}) {
    super();
    this.#sampleRate = sampleRate;
    this.#module = module;
    this.#constraints = {
      channelCount: 1,
      echoCancellation: processing,
      noiseSuppression: processing,
      autoGainControl: processing,
      ...(deviceId === undefined ? {} : { deviceId: { exact: deviceId } }),
    };
  }

  /** Whether it captures now. */
  get running() {
    return this.#node !== null && !this.#interrupted;
  }

  /** Whether the browser gives no sound, for a while. */
  get interrupted() {
    return this.#interrupted;
  }

  /** What the device is called; empty before `start`. */
  get label() {
    return this.#stream?.getAudioTracks()[0]?.label ?? "";
  }

  /** The rate in Hz at which the device is read, before it is brought to the rate that was asked for; 0 before `start`. */
  get deviceRate() {
    return this.#context?.sampleRate ?? 0;
  }

  /**
   * Begin to capture; the browser asks its user first. Call it from a click or a key. A `stop` meanwhile ends it: then it
   * resolves and nothing runs, whatever the user answers.
   * @throws {MicrophoneError}
   */
  start() {
    if (this.#node !== null) return Promise.resolve();
    if (this.#starting === null) {
      const starting = this.#begin(++this.#turn).finally(() => {
        if (this.#starting === starting) this.#starting = null;
      });
      this.#starting = starting;
    }
    return this.#starting;
  }

  async #begin(turn) {
    if (!navigator.mediaDevices?.getUserMedia || typeof AudioWorkletNode === "undefined") {
      throw new MicrophoneError("unsupported", "this page can't use a microphone: it must come by https: or from this machine");
    }
    const over = () => turn !== this.#turn;
    let stream = null;
    let context = null;
    let node = null;
    try {
      // Sound comes from the device as soon as it is open, and nobody else keeps it: so it is opened last.
      [context, node] = await this.#prepare(this.#sampleRate);
      if (over()) return await letGo(stream, context, node);
      stream = await navigator.mediaDevices.getUserMedia({ audio: this.#constraints });
      if (over()) return await letGo(stream, context, node);
      let source = sourceIn(context, stream);
      if (source === null) {
        await letGo(null, context, node);
        [context, node] = await this.#prepare();
        if (over()) return await letGo(stream, context, node);
        source = context.createMediaStreamSource(stream);
      }
      node.port.onmessage = ({ data }) => over() || this.#captured(data);
      node.onprocessorerror = () => over() || this.#lost("failed", "the browser's audio processing failed");
      source.connect(node);
      await context.resume();
    } catch (error) {
      await letGo(stream, context, node);
      if (over()) return;
      const [kind, message] = REFUSALS[error.name] ?? ["failed", `the microphone can't be used: ${error.message}`];
      throw new MicrophoneError(kind, message, error);
    }
    if (over()) return await letGo(stream, context, node);
    [this.#stream, this.#context, this.#node] = [stream, context, node];
    const [track] = stream.getAudioTracks();
    track.onended = () => this.#lost("lost", GONE);
    track.onmute = track.onunmute = () => this.#tell("muted", { muted: track.muted });
    context.onstatechange = () => this.#stateChanged();
    this.#stateChanged();
    if (track.readyState === "ended") await this.#lost("lost", GONE);
  }

  /** Stop to capture and let go of the device. What it had captured has been told when this resolves. */
  async stop() {
    this.#turn += 1;
    this.#starting = null;
    if (this.#node !== null) {
      const { port } = this.#node;
      const flushed = new Promise((resolve) => {
        port.onmessage = ({ data }) => (data === null ? resolve() : this.#captured(data));
        setTimeout(resolve, 200); // a context that is suspended answers nothing
      });
      port.postMessage(null);
      await flushed;
    }
    await this.#release();
  }

  /** A context of this rate, or of the device's own, and in it the node that captures what it is given. */
  async #prepare(sampleRate) {
    const context = new AudioContext({ ...(sampleRate === undefined ? {} : { sampleRate }), latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule(this.#module);
      const processorOptions = { sampleRate: this.#sampleRate };
      return [context, new AudioWorkletNode(context, CAPTURE, { numberOfOutputs: 0, processorOptions })];
    } catch (error) {
      await letGo(null, context, null);
      throw error;
    }
  }

  /** The context was interrupted or suspended, or goes on: its clock stood still meanwhile. */
  #stateChanged() {
    if (this.#context === null || this.#context.state === "closed") return;
    const interrupted = this.#context.state !== "running";
    if (interrupted === this.#interrupted) return;
    this.#offsetMs = null;
    this.#interrupted = interrupted;
    this.#listenForTheUser(interrupted);
    this.#tell("interrupted", { interrupted });
    if (interrupted) this.#resume();
  }

  /** Ask the browser to go on, again and again: while a phone rings it does not. */
  #resume() {
    clearTimeout(this.#again);
    if (!this.#interrupted || this.#context === null) return;
    this.#context.resume().catch(() => {});
    this.#again = setTimeout(this.#goOn, RESUME_MS);
  }

  #listenForTheUser(on) {
    for (const [target, name] of [[document, "visibilitychange"], [window, "pointerdown"], [window, "keydown"]]) {
      if (on) target.addEventListener(name, this.#goOn);
      else target.removeEventListener(name, this.#goOn);
    }
  }

  #captured({ samples, mediaMs, meanSquare, peak }) {
    const nowMs = performance.now() - FRAME_MS;
    this.#offsetMs ??= nowMs - mediaMs;
    const late = this.#late;
    late.leastMs = Math.min(late.leastMs, nowMs - mediaMs - this.#offsetMs);
    late.pieces += 1;
    if (late.pieces === LATE_PIECES) {
      if (late.leastMs > LATE_MS) this.#offsetMs += late.leastMs; // the context's clock stood still, as in a machine that slept
      this.#late = { leastMs: Infinity, pieces: 0 };
    }
    this.#tell("audio", { samples, mediaMs: mediaMs + this.#offsetMs });
    const decibels = (power) => Math.max(QUIET_DBFS, 10 * Math.log10(power));
    this.#tell("level", { rms: decibels(meanSquare), peak: decibels(peak * peak) });
  }

  async #lost(kind, message) {
    await this.#release();
    this.#tell("lost", new MicrophoneError(kind, message));
  }

  #release() {
    const [stream, context, node] = [this.#stream, this.#context, this.#node];
    this.#node = this.#stream = this.#context = this.#offsetMs = null;
    this.#late = { leastMs: Infinity, pieces: 0 };
    this.#interrupted = false;
    clearTimeout(this.#again);
    this.#listenForTheUser(false);
    return letGo(stream, context, node);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** The sound of the device in this context; null where the browser can't read the device at the context's rate. */
function sourceIn(context, stream) {
  try {
    return context.createMediaStreamSource(stream);
  } catch (error) {
    if (error.name !== "NotSupportedError") throw error;
    return null;
  }
}

async function letGo(stream, context, node) {
  node?.disconnect();
  for (const track of stream?.getTracks() ?? []) {
    track.onended = track.onmute = track.onunmute = null;
    track.stop();
  }
  if (context === null || context.state === "closed") return;
  context.onstatechange = null;
  await context.close();
}

const ZERO_CROSSINGS = 16; // of the filter, on each side
const PASSED = 0.92; // of the band; the rest is for the filter's slope
const KAISER_BETA = 8; // images and aliases are 80 dB down

/** Brings samples from one rate to another, through a low-pass filter (a windowed sinc). Rates in Hz, whole numbers. */
export class Resampler {
  #step; // from one output sample to the next, in input samples times phases
  #phases;
  #half;
  #table = [];
  #held; // input that is still needed
  #first; // the number of its first sample; zeros stand before sample 0
  #next = 0; // the number of the next output sample

  constructor(from, to) {
    const divisor = gcd(from, to);
    this.#phases = to / divisor;
    this.#step = from / divisor;
    const cutoff = Math.min(1, to / from) * PASSED;
    this.#half = Math.ceil(ZERO_CROSSINGS / cutoff);
    for (let phase = 0; phase < this.#phases; phase++) this.#table.push(this.#taps(phase / this.#phases, cutoff));
    this.#held = new Float32Array(this.#half);
    this.#first = -this.#half;
  }

  /** All output that these samples, and those before, make possible. */
  process(input) {
    const all = new Float32Array(this.#held.length + input.length);
    all.set(this.#held);
    all.set(input, this.#held.length);
    const output = [];
    for (;;) {
      const at = Math.floor((this.#next * this.#step) / this.#phases);
      const start = at - this.#half + 1 - this.#first;
      if (start + 2 * this.#half > all.length) {
        const needed = Math.min(all.length, Math.max(0, start));
        this.#held = all.slice(needed);
        this.#first += needed;
        return Float32Array.from(output);
      }
      const taps = this.#table[(this.#next * this.#step) % this.#phases];
      let sum = 0;
      for (let k = 0; k < taps.length; k++) sum += taps[k] * all[start + k];
      output.push(sum);
      this.#next += 1;
    }
  }

  /** What is left when no more input comes. */
  flush() {
    return this.process(new Float32Array(this.#half));
  }

  #taps(offset, cutoff) {
    const taps = new Float32Array(2 * this.#half);
    let sum = 0;
    for (let k = 0; k < taps.length; k++) {
      const distance = k - this.#half + 1 - offset;
      const x = Math.PI * distance * cutoff;
      const inside = 1 - (distance / this.#half) ** 2;
      taps[k] = inside < 0 ? 0 : (x === 0 ? 1 : Math.sin(x) / x) * bessel(KAISER_BETA * Math.sqrt(inside));
      sum += taps[k];
    }
    return taps.map((tap) => tap / sum);
  }
}

function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}

/** The modified Bessel function of the first kind, of order 0. */
function bessel(x) {
  let sum = 1;
  for (let k = 1, term = 1; term > sum * 1e-12; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

// --- in the AudioWorklet ---------------------------------------------------------------------------------------------

/** Cuts samples from -1 to 1 into 20 ms of 16 bit, and measures them. `tell` gets each piece; `end` tells the rest. */
export class Cutter {
  #tell;
  #samples;
  #filled = 0;
  #mediaMs = 0;
  #squares = 0;
  #peak = 0;

  constructor(sampleRate, tell) {
    this.#tell = tell;
    this.#samples = new Int16Array((sampleRate * FRAME_MS) / 1000);
  }

  /** Samples, the first of them captured at `mediaMs`. */
  take(input, mediaMs) {
    for (const value of input) {
      if (this.#filled === 0) this.#mediaMs = mediaMs;
      const clamped = Math.max(-1, Math.min(1, value));
      this.#squares += clamped * clamped;
      this.#peak = Math.max(this.#peak, Math.abs(clamped));
      this.#samples[this.#filled++] = Math.round(clamped * 32767);
      if (this.#filled === this.#samples.length) this.end();
    }
  }

  /** Tell what there is, though it is less than 20 ms. */
  end() {
    if (this.#filled === 0) return;
    const samples = this.#samples.slice(0, this.#filled);
    const meanSquare = this.#squares / this.#filled;
    this.#tell({ samples, mediaMs: Math.round(this.#mediaMs), meanSquare, peak: this.#peak });
    this.#filled = this.#squares = this.#peak = 0;
  }
}

const HICCUP = 0.2; // seconds without input that are taken for silence: a device begins so, and a busy machine has them

if (typeof AudioWorkletProcessor !== "undefined") {
  registerProcessor(
    CAPTURE,
    class extends AudioWorkletProcessor {
      #cutter;
      #resampler = null;
      #began = null;
      #due = 0; // the frame of the context that would follow on
      #running = true;

      constructor({ processorOptions }) {
        super();
        this.#cutter = new Cutter(processorOptions.sampleRate, (piece) =>
          this.port.postMessage(piece, [piece.samples.buffer]),
        );
        if (processorOptions.sampleRate !== sampleRate) {
          this.#resampler = new Resampler(sampleRate, processorOptions.sampleRate);
        }
        this.port.onmessage = () => this.#end();
      }

      process([channels]) {
        if (channels.length > 0 && this.#running) {
          this.#began ??= currentTime;
          const missing = this.#due === 0 ? 0 : currentFrame - this.#due;
          if (missing > 0 && missing < sampleRate * HICCUP) this.#take(new Float32Array(missing), currentTime - missing / sampleRate);
          const mono = channels.length === 1 ? channels[0] : mixed(channels);
          this.#take(mono, currentTime);
          this.#due = currentFrame + mono.length;
        }
        return this.#running;
      }

      #take(mono, time) {
        this.#cutter.take(this.#resampler?.process(mono) ?? mono, (time - this.#began) * 1000);
      }

      #end() {
        if (this.#resampler !== null) this.#cutter.take(this.#resampler.flush(), (currentTime - this.#began) * 1000);
        this.#cutter.end();
        this.#running = false;
        this.port.postMessage(null);
      }
    },
  );
}

function mixed(channels) {
  return channels[0].map((_, at) => channels.reduce((sum, channel) => sum + channel[at], 0) / channels.length);
}
