// Plays scripts on the JavaScript client's rules: each line that comes in is a list of steps, each line that goes out what
// every step answered, and the state behind it.

import { createInterface } from "node:readline";
import { argv, stdin, stdout } from "node:process";

const { ClientStream, StreamViolation, readFromServer, writeAudio } = await import(argv[2]);

const steps = {
  capture: (client, [count]) => client.capture(count),
  skip: (client, [count]) => client.skip(count),
  finish: (client, [short]) => client.finish({ short }),
  hello: (client, [formats]) => client.hello(formats),
  closed: (client, [code]) => client.closed(code),
  receive: (client, [text]) => client.receive(readFromServer(text)),
  to_send: (client, [most]) => client.toSend(most),
  beat: (client) => client.beat(),
  credential: (client, [ticket]) => void (client.credential = ticket),
};

function answer(client, [name, ...given]) {
  try {
    return steps[name](client, given) ?? null;
  } catch (error) {
    if (error instanceof StreamViolation) return { violation: error.code };
    if (error instanceof RangeError) return { refused: true };
    throw error;
  }
}

const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const state = (client) => Object.fromEntries(Object.entries(structuredClone({ ...client })).map(([name, value]) => [snake(name), value]));
const hex = (bytes) => Buffer.from(bytes).toString("hex");

function played({ capacity, script, read, audio }) {
  if (read !== undefined) return answer({ receive: (message) => message }, ["receive", read]);
  if (audio !== undefined) {
    return hex(writeAudio(audio, audio.frames.map((frame) => Uint8Array.from(Buffer.from(frame, "hex")))));
  }
  const client = new ClientStream(capacity, "avs_1");
  return script.map((step) => [answer(client, step), state(client)]);
}

for await (const line of createInterface({ input: stdin })) stdout.write(`${JSON.stringify(played(JSON.parse(line)))}\n`);
