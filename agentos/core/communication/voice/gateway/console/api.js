/** The HTTP interface of the server, under the reader's token. */

const TOKEN = "agentos-voice-token"; // in sessionStorage: gone with the tab
const FINISHING = "urn:agentos-voice:problem:recording-finishing";

/** What the server refuses: a problem of RFC 9457. `title` says what kind, `message` what to do. */
export class Problem extends Error {
  name = "Problem";

  constructor(status, body) {
    super(body.detail || `the server answered ${status}`);
    this.status = status;
    this.title = body.title ?? "The server refused";
    this.body = body;
  }
}

/** No answer at all, as of a network that is down; a `TypeError` like that of `fetch`, which is worth another try. */
class Unreachable extends TypeError {
  name = "Unreachable";
  title = "The server does not answer";

  constructor(cause) {
    super("it can't be reached from here: what is shown may be old", { cause });
  }
}

/** Every event as the server sends it, out of the bytes of a `text/event-stream`. */
async function* eventsOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").find((line) => line.startsWith("data: "));
        if (data !== undefined) yield JSON.parse(data.slice(6));
      }
    }
  } finally {
    await reader.cancel();
  }
}

/** A random key, so that a request that is sent twice is carried out once. */
export function onceKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Asks the server. Raises `Problem` and `Unreachable`; fires `signed-out` with a problem when the token is not good any more. */
export class Api extends EventTarget {
  #root = new URL("../", document.baseURI);
  #token = sessionStorage.getItem(TOKEN);
  #known = this.#token !== null; // the server has taken it

  get signedIn() {
    return this.#known;
  }

  /** Use this token from now on, if the server takes it. */
  async signIn(token) {
    this.#token = token;
    try {
      await this.get("v1/sessions", { limit: 1 });
    } catch (error) {
      this.#token = null;
      throw error;
    }
    this.#known = true;
    sessionStorage.setItem(TOKEN, token);
  }

  signOut() {
    this.#token = null;
    this.#known = false;
    sessionStorage.removeItem(TOKEN);
  }

  /** Where streams are opened: beside the API, so that it is right behind a proxy, too. */
  get streamUrl() {
    const url = new URL("v1/stream", this.#root);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return url;
  }

  /** What the server says of itself to everybody. */
  async about() {
    return this.get(new URL("about.json", document.baseURI));
  }

  async get(path, query = {}, options = {}) {
    return (await this.#ask("GET", path, { query, ...options })).json();
  }

  async post(path, body, headers = {}) {
    return (await this.#ask("POST", path, { body, headers })).json();
  }

  /** The recording of a session, as a blob. While the server finishes it, this waits, until `signal` aborts. */
  async recording(sessionId, signal) {
    for (;;) {
      try {
        return await (await this.#ask("GET", `v1/sessions/${sessionId}/recording`, { signal })).blob();
      } catch (error) {
        if (error.body?.type !== FINISHING || signal.aborted) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1000 * error.body.retry_after_seconds));
      }
    }
  }

  /** Events of a session behind `after`, stored ones and then those to come, until it has stopped or `signal` aborts. */
  async *follow(sessionId, after, signal) {
    const headers = { Accept: "text/event-stream" };
    const response = await this.#ask("GET", `v1/sessions/${sessionId}/events`, { query: { after }, headers, signal });
    if (response.status !== 204) yield* eventsOf(response.body);
  }

  async #ask(method, path, { query = {}, body, headers = {}, signal }) {
    const url = new URL(path, this.#root);
    for (const [name, value] of Object.entries(query)) {
      if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
    }
    const sent = new Headers(headers);
    if (this.#token !== null) sent.set("Authorization", `Bearer ${this.#token}`);
    if (body !== undefined) sent.set("Content-Type", "application/json");
    const response = await fetch(url, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    }).catch((error) => {
      throw error instanceof TypeError ? new Unreachable(error) : error;
    });
    if (response.ok) return response;
    const problem = new Problem(response.status, await response.json().catch(() => ({})));
    if (problem.status === 401 && this.#known) {
      this.dispatchEvent(new CustomEvent("signed-out", { detail: problem }));
    }
    throw problem;
  }
}
