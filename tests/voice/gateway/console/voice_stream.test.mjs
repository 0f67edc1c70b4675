// `VoiceStream` against a server of ours without a network, on a clock that the test turns; the resampler and the cutter on tones.

import assert from "node:assert/strict";
import { argv, env } from "node:process";
import { test } from "node:test";

// Node 18 has no CustomEvent of its own.
globalThis.CustomEvent ??= class extends Event {
  constructor(name, { detail }) {
    super(name);
    this.detail = detail;
  }
};

const { Cutter, Phase, Resampler, StreamCode, VoiceStream } = await import(env.MODULE ?? argv[2]);

const FRAME_BYTES = 640;
const FORMAT = { encoding: "pcm_s16le", sample_rate: 16_000, channels: 1 };

/** Time that passes when it is told to. */
class Clock {
  now = 0;
  #tasks = new Map();
  #next = 1;

  constructor(t) {
    for (const [name, repeats] of [["setTimeout", false], ["setInterval", true]]) {
      const real = globalThis[name];
      globalThis[name] = (act, ms) => {
        this.#tasks.set(this.#next, { act, at: this.now + ms, every: repeats ? ms : null });
        return this.#next++;
      };
      t.after(() => (globalThis[name] = real));
    }
    for (const name of ["clearTimeout", "clearInterval"]) {
      const real = globalThis[name];
      globalThis[name] = (task) => this.#tasks.delete(task);
      t.after(() => (globalThis[name] = real));
    }
    t.mock.method(Date, "now", () => this.now);
  }

  get idle() {
    return this.#tasks.size === 0;
  }

  async pass(ms) {
    const end = this.now + ms;
    for (;;) {
      await settled();
      const due = [...this.#tasks].filter(([, task]) => task.at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined) break;
      const [id, task] = due;
      this.now = task.at;
      if (task.every === null) this.#tasks.delete(id);
      else task.at += task.every;
      task.act();
    }
    this.now = end;
    await settled();
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A socket whose far end is the test. */
class Socket {
  static all = [];
  sent = [];
  bufferedAmount = 0;
  code = null;

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    Socket.all.push(this);
  }

  send(data) {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : audioOf(data));
  }

  close(code) {
    this.code = code;
  }

  say(message) {
    this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  welcome({ expected = 0, durable = 0, limit = 1000, ...more } = {}) {
    this.onopen();
    this.say({
      type: "welcome", session_id: "voice-1", resume: "avr_1", format: FORMAT, expected, durable, limit,
      state: "created", verdict: {}, heartbeat_ms: 1000, max_message_bytes: 65_536, ...more,
    });
  }

  get frames() {
    return this.sent.filter((message) => message.payload).flatMap(({ first, count }) =>
      Array.from({ length: count }, (_, at) => first + at));
  }
}

function audioOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return {
    first: view.getUint32(4), count: view.getUint16(2), last: view.getUint8(1) === 1, mediaMs: view.getUint32(8),
    payload: bytes.subarray(12),
  };
}

function begun(t, options = {}) {
  Socket.all = [];
  const clock = new Clock(t);
  let tickets = 0;
  const stream = new VoiceStream({
    url: "ws://here/v1/stream",
    ticket: async () => `avs_${++tickets}`,
    format: FORMAT,
    newSocket: (url, protocol) => new Socket(url, protocol),
    random: () => 1,
    ...options,
  });
  const told = [];
  for (const name of ["phase", "welcome", "event", "gap", "progress"]) {
    stream.addEventListener(name, ({ detail }) => told.push([name, detail]));
  }
  stream.start();
  return { stream, clock, told, socket: (at = -1) => Socket.all.at(at), named: (name) => told.filter(([n]) => n === name).map(([, d]) => d) };
}

const frames = (count, value = 1) => new Uint8Array(count * FRAME_BYTES).fill(value);

test("a ticket opens the stream, audio of any length goes out in frames, and the end stops the session", async (t) => {
  const { stream, clock, socket, named } = begun(t);
  stream.send(frames(2.5));
  await settled();
  assert.deepEqual([socket().url, socket().protocol], ["ws://here/v1/stream", "agentos-voice.v1"]);
  socket().welcome();
  assert.deepEqual(socket().sent[0], { type: "hello", formats: [FORMAT], attempt: 1, ticket: "avs_1" });
  assert.deepEqual(socket().frames, [0, 1]);
  const done = stream.finish();
  const last = socket().sent.at(-2);
  assert.deepEqual([last.first, last.count, last.last, last.payload.length], [2, 1, true, FRAME_BYTES / 2]);
  assert.deepEqual(socket().sent.at(-1), { type: "end", upto: 3 });
  socket().say({ type: "bye", state: "stopped", reason: "stopped" });
  assert.deepEqual(await done, { state: "stopped", reason: "stopped" });
  assert.equal(stream.progress.received, 3);
  assert.equal(named("phase").at(-1).phase, Phase.ENDED);
  assert.ok(clock.idle, "a timer is left");
});

test("half a sample at the end stays outside", async (t) => {
  const { stream, socket } = begun(t);
  await settled();
  socket().welcome();
  stream.send(new Uint8Array(FRAME_BYTES + 3));
  stream.finish();
  assert.deepEqual(socket().sent.filter((message) => message.count).map(({ payload }) => payload.length), [FRAME_BYTES, 2]);
  const alone = begun(t);
  await settled();
  alone.socket().welcome();
  alone.stream.send(new Uint8Array(1));
  alone.stream.finish();
  assert.deepEqual(alone.socket().sent.at(-1), { type: "end", upto: 0 });
});

test("an address that can't be had fails the stream, and says so", async (t) => {
  const { stream, clock, named } = begun(t, { newSocket: () => { throw new SyntaxError("no such address"); } });
  await assert.rejects(stream.done, /no such address/);
  assert.equal(named("phase").at(-1).phase, Phase.FAILED);
  assert.ok(clock.idle, "a timer is left");
});

test("tickets that never come are waited for in bounds", async (t) => {
  const { stream, clock } = begun(t, { ticket: () => new Promise(() => {}), patienceSeconds: 30 });
  await clock.pass(60_000);
  await assert.rejects(stream.done, /no ticket/);
  assert.ok(clock.idle, "a timer is left");
});

test("a server that welcomes and goes, again and again, is given up", async (t) => {
  const { stream, clock, socket } = begun(t, { patienceSeconds: 5 });
  for (let turn = 0; turn < 40 && stream.phase !== Phase.FAILED; turn++) {
    await settled();
    socket().welcome();
    socket().onclose?.({ code: StreamCode.FAULT, reason: "a fault" });
    await clock.pass(6_000);
  }
  await assert.rejects(stream.done, /a fault/);
});

test("it is started once", async (t) => {
  const { stream, socket } = begun(t);
  stream.start();
  await settled();
  socket().welcome();
  stream.start();
  await settled();
  assert.equal(Socket.all.length, 1);
});

test("after a cut it comes back with its token and sends what the server has not", async (t) => {
  const { stream, clock, socket } = begun(t);
  await settled();
  socket().welcome();
  for (let at = 0; at < 10; at++) stream.send(frames(1, at));
  socket().say({ type: "ack", received: 6, durable: 4, limit: 1000 });
  socket().onclose({ code: StreamCode.LOST, reason: "" });
  assert.equal(stream.phase, Phase.AWAY);
  stream.send(frames(1, 10));
  await clock.pass(250);
  assert.equal(Socket.all.length, 2);
  socket().welcome({ expected: 7, durable: 4 });
  assert.deepEqual(socket().sent[0], {
    type: "hello", formats: [FORMAT], attempt: 2, resume: "avr_1", first: 4, next: 11, events: 0, durable: 4,
  });
  assert.deepEqual(socket().frames, [7, 8, 9, 10]);
  const sent = Buffer.concat(socket().sent.filter((message) => message.count).map((message) => message.payload));
  assert.deepEqual(Array.from(sent.filter((_, at) => at % FRAME_BYTES === 0)), [7, 8, 9, 10]);
  assert.equal(stream.progress.connected, 2);
});

test("what fell off the ring is declared and told", async (t) => {
  const { stream, clock, socket, named } = begun(t, { ringSeconds: 0.1 });
  await settled();
  socket().welcome();
  stream.send(frames(2));
  socket().onclose({ code: StreamCode.LOST, reason: "" });
  for (let at = 0; at < 9; at++) stream.send(frames(1));
  await clock.pass(250);
  socket().welcome({ expected: 2 });
  assert.deepEqual(socket().sent[1], { type: "gap", first: 2, count: 4, reason: "ring" });
  assert.deepEqual(named("gap"), [{ first: 2, count: 4, reason: "ring" }]);
  assert.deepEqual(socket().frames, [6, 7, 8, 9, 10]);
  assert.equal(stream.progress.lost, 4);
});

test("nothing goes out beyond the credit, or into a socket that is full", async (t) => {
  const { stream, clock, socket } = begun(t);
  await settled();
  socket().welcome({ limit: 3 });
  stream.send(frames(5));
  assert.deepEqual(socket().frames, [0, 1, 2]);
  socket().bufferedAmount = 1_000_000;
  socket().say({ type: "ack", received: 3, durable: 0, limit: 10 });
  assert.deepEqual(socket().frames, [0, 1, 2]);
  socket().bufferedAmount = 0;
  await clock.pass(50);
  assert.deepEqual(socket().frames, [0, 1, 2, 3, 4]);
});

test("messages are no larger than the server takes", async (t) => {
  const { stream, socket } = begun(t);
  stream.send(frames(7));
  await settled();
  socket().welcome({ max_message_bytes: 12 + 3 * FRAME_BYTES });
  assert.deepEqual(socket().sent.slice(1).map(({ count }) => count), [3, 3, 1]);
});

test("a server that falls silent is left, and one that pings is answered", async (t) => {
  const { clock, socket } = begun(t);
  await settled();
  socket().welcome();
  await clock.pass(2500);
  socket().say({ type: "ping", id: 7 });
  assert.deepEqual(socket().sent.at(-1), { type: "pong", id: 7 });
  const first = socket();
  await clock.pass(4000);
  assert.equal(first.code, StreamCode.DONE);
  assert.equal(first.onmessage, null);
  assert.equal(Socket.all.length, 2);
});

test("a connection that is not answered is tried again, with growing pauses", async (t) => {
  const { clock, socket } = begun(t);
  await settled();
  const begins = [];
  for (let at = 0; at < 8; at++) {
    const before = Socket.all.length;
    socket().onclose({ code: StreamCode.LOST, reason: "" });
    const left = clock.now;
    while (Socket.all.length === before) await clock.pass(10);
    begins.push(clock.now - left);
  }
  assert.deepEqual(begins, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  await clock.pass(10_250);
  assert.equal(socket(-2).code, StreamCode.DONE, "no answer for too long");
  assert.equal(socket().sent.length, 0);
});

test("each connection before the first welcome has a ticket of its own", async (t) => {
  const { clock, socket } = begun(t);
  await settled();
  socket().onopen();
  socket().onclose({ code: StreamCode.UNAVAILABLE, reason: "" });
  await clock.pass(1999);
  assert.equal(Socket.all.length, 1, "a server without room is given time");
  await clock.pass(1);
  socket().onopen();
  assert.equal(socket().sent[0].ticket, "avs_2");
});

test("a ticket that can't be had for want of a network is asked for again, and a refusal is the end", async (t) => {
  const answers = [new TypeError("Failed to fetch"), new Error("not allowed")];
  const { stream, clock, named } = begun(t, { ticket: async () => Promise.reject(answers.shift()) });
  await settled();
  assert.equal(named("phase").at(-1).phase, Phase.AWAY);
  await clock.pass(250);
  assert.equal(stream.phase, Phase.FAILED);
  await assert.rejects(stream.done, { message: "not allowed" });
  assert.ok(clock.idle, "a timer is left");
});

for (const [name, code] of Object.entries({ UNAUTHENTICATED: 4401, ENDED: 4404, FENCED: 4409, BEYOND_LIMIT: 4414 })) {
  test(`after ${name} it does not come back, and says why`, async (t) => {
    const { stream, clock, socket } = begun(t);
    await settled();
    socket().welcome();
    socket().onclose({ code, reason: "because" });
    await assert.rejects(stream.done, { name: "StreamFailed", code, message: "because" });
    await clock.pass(60_000);
    assert.equal(Socket.all.length, 1);
    stream.send(frames(1));
    assert.ok(clock.idle, "a timer is left");
  });
}

test("a server that breaks the protocol is left with the code for it", async (t) => {
  const { stream, socket } = begun(t);
  await settled();
  socket().welcome();
  const it = socket();
  it.say('{"type":"ack"}');
  assert.equal(it.code, StreamCode.MALFORMED);
  await assert.rejects(stream.done, { code: StreamCode.MALFORMED });
});

test("who is away for too long has failed", async (t) => {
  const { stream, clock, socket } = begun(t, { patienceSeconds: 5 });
  await settled();
  socket().welcome();
  socket().onclose({ code: StreamCode.LOST, reason: "" });
  for (let at = 0; at < 100 && stream.phase === Phase.AWAY; at++) {
    await clock.pass(100);
    if (Socket.all.at(-1).onclose) socket().onclose({ code: StreamCode.LOST, reason: "" });
  }
  assert.equal(stream.phase, Phase.FAILED);
  assert.ok(clock.now >= 5000 && clock.now < 10_000);
});

test("events are told once and in order, whatever is sent twice", async (t) => {
  const { clock, socket, named } = begun(t);
  await settled();
  socket().welcome();
  const event = (number) => ({ type: "event", number, event: "stt_final", timestamp_ms: 5, payload: { text: `${number}` } });
  socket().say(event(1));
  socket().say(event(2));
  socket().onclose({ code: StreamCode.GOING_AWAY, reason: "" });
  await clock.pass(250);
  socket().welcome();
  assert.equal(socket().sent[0].events, 2);
  socket().say(event(2));
  socket().say(event(3));
  assert.deepEqual(named("event").map(({ number }) => number), [1, 2, 3]);
});

test("the media time is the caller's, from 0, and never falls", async (t) => {
  const { stream, socket } = begun(t);
  await settled();
  socket().welcome();
  stream.send(frames(1), 5000);
  stream.send(frames(2), 5020);
  stream.send(frames(1), 5050);
  stream.send(frames(1), 4000);
  stream.send(frames(1));
  assert.deepEqual(socket().sent.slice(1).map(({ first, mediaMs }) => [first, mediaMs]), [[0, 0], [1, 20], [3, 50], [4, 50], [5, 70]]);
});

test("what was not captured is declared, and told, and takes no room in the ring", async (t) => {
  const { stream, clock, socket, named } = begun(t, { ringSeconds: 0.1 });
  await settled();
  socket().welcome();
  stream.send(frames(3), 1000);
  stream.send(frames(1), 1090); // jitter
  stream.send(frames(0.25), 6083);
  assert.deepEqual(socket().sent.at(-1), { type: "gap", first: 4, count: 250, reason: "capture" });
  assert.deepEqual(named("gap"), [{ first: 4, count: 250, reason: "capture" }]);
  socket().onclose({ code: StreamCode.LOST, reason: "" });
  stream.send(frames(1), 9093);
  assert.deepEqual([stream.progress.captured, stream.progress.waiting], [6, 2], "the frame that was begun is filled up");
  const done = stream.finish({ mediaMs: 12_113 });
  await clock.pass(250);
  socket().welcome({ expected: 2 });
  const said = socket().sent.slice(1).map(({ type, first, count, reason, upto, mediaMs }) =>
    type === "gap" ? [first, count, reason] : type === "end" ? upto : [first, count, mediaMs],
  );
  assert.deepEqual(said, [
    [2, 2, 40], [4, 250, "capture"], [254, 1, 5083], [255, 149, "capture"], [404, 1, 8093], [405, 150, "capture"], 555,
  ]);
  assert.equal(socket().sent.find(({ first }) => first === 254).payload.at(-1), 0);
  socket().say({ type: "bye", state: "stopped", reason: "stopped" });
  await done;
  assert.equal(stream.progress.lost, 0);
});

test("another page goes on with a bookmark, and declares what this one could not send", async (t) => {
  const before = begun(t);
  assert.equal(before.stream.bookmark, null);
  await settled();
  before.socket().welcome();
  before.stream.send(frames(10), 5000);
  before.socket().say({ type: "ack", received: 10, durable: 6, limit: 100 });
  before.socket().say({ type: "event", number: 3, event: "stt_final", timestamp_ms: 1, payload: {} });
  const { bookmark } = before.stream; // two seconds before the other page goes on
  before.stream.send(frames(2), 5200);
  const earlier = { ...bookmark, atMs: bookmark.atMs - 2000 };
  const { stream, socket, named } = begun(t, { bookmark: earlier, mediaMs: 70_000, ticket: () => assert.fail("a ticket") });
  await settled();
  socket().welcome({ expected: 11, resume: "avr_1" });
  const [hello, gap] = socket().sent;
  assert.deepEqual([hello.resume, hello.attempt, hello.first, hello.next, hello.events, hello.durable], ["avr_1", 2, 111, 111, 3, 6]);
  assert.deepEqual(gap, { type: "gap", first: 11, count: 100, reason: "ring" });
  stream.send(frames(1), 70_000);
  stream.send(frames(1), 71_030);
  assert.deepEqual(socket().sent.slice(2).map(({ type, first, count, mediaMs }) => [type ?? "audio", first, count, mediaMs]), [
    ["audio", 111, 1, 2220], ["gap", 112, 50, undefined], ["audio", 162, 1, 3250],
  ]);
  assert.deepEqual([stream.progress.captured, stream.progress.lost, named("gap").length], [2, 100, 2]);
});

test("who leaves without an end lets go of everything", async (t) => {
  const { stream, clock, socket } = begun(t);
  await settled();
  socket().welcome();
  const it = socket();
  stream.close();
  assert.equal(it.code, StreamCode.DONE);
  await assert.rejects(stream.done, { code: StreamCode.DONE });
  assert.ok(clock.idle, "a timer is left");
});

test("formats that it can't send, and audio after the end, are errors", async (t) => {
  const make = (format) => () => new VoiceStream({ url: "ws://here", ticket: async () => "t", format });
  assert.throws(make({ encoding: "opus", sample_rate: 48_000 }), RangeError);
  assert.throws(make({ encoding: "pcm_s16le", sample_rate: 11_025 }), RangeError);
  assert.throws(make({ encoding: "pcm_s16le", sample_rate: 96_000 }), RangeError);
  const { stream } = begun(t);
  stream.finish();
  assert.throws(() => stream.send(frames(1)), RangeError);
});

// --- sound

const tone = (rate, hertz, samples) => Float32Array.from({ length: samples }, (_, at) => Math.sin((2 * Math.PI * hertz * at) / rate));
const decibels = (samples) => 10 * Math.log10(samples.reduce((sum, value) => sum + value * value, 0) / samples.length + 1e-30);

function resampled(from, to, input, piece) {
  const resampler = new Resampler(from, to);
  const output = [];
  for (let at = 0; at < input.length; at += piece) output.push(...resampler.process(input.subarray(at, at + piece)));
  return Float32Array.from([...output, ...resampler.flush()]);
}

for (const [from, to] of [[48_000, 16_000], [44_100, 16_000], [44_100, 48_000], [48_000, 8000], [16_000, 24_000]]) {
  test(`from ${from} to ${to} Hz a tone stays a tone, and what can't be held is not heard`, () => {
    const seconds = 0.5;
    const output = resampled(from, to, tone(from, 1000, from * seconds), 128);
    const wanted = tone(to, 1000, to * seconds);
    assert.ok(Math.abs(output.length - wanted.length) <= 2, `${output.length} samples`);
    const middle = (samples) => samples.subarray(to * 0.1, to * 0.4);
    const error = middle(output).map((value, at) => value - middle(wanted)[at]);
    assert.ok(decibels(error) < -60, `error ${decibels(error)} dB`);
    if (to < from) {
      const alias = resampled(from, to, tone(from, to * 0.7, from * seconds), 128);
      assert.ok(decibels(middle(alias)) < -60, `alias ${decibels(middle(alias))} dB`);
    }
  });
}

test("resampling does not depend on how the input is cut", () => {
  const input = tone(48_000, 440, 4800);
  assert.deepEqual(resampled(48_000, 16_000, input, 128), resampled(48_000, 16_000, input, 777));
});

test("samples are cut into 20 ms of 16 bit, clamped, and measured", () => {
  const told = [];
  const cutter = new Cutter(16_000, (piece) => told.push(piece));
  cutter.take(new Float32Array(300).fill(0.5), 0);
  cutter.take(Float32Array.from([...Array(20).fill(0.5), ...Array(10).fill(-2)]), 18.75);
  cutter.end();
  cutter.end();
  assert.deepEqual(told.map(({ samples }) => samples.length), [320, 10]);
  assert.deepEqual(told.map(({ mediaMs }) => mediaMs), [0, 19]);
  assert.equal(told[0].samples[0], 16384);
  assert.equal(told[1].samples[0], -32767);
  assert.deepEqual(told.map(({ meanSquare, peak }) => [meanSquare, peak]), [[0.25, 0.5], [1, 1]]);
});
