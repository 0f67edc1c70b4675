/** The events of any session, live: again after every cut, from where it was cut. */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

/**
 * Every event of a session behind `after` in the form of the stream's, until the session has stopped or `signal` aborts.
 * @param {import("./api.js").Api} api
 */
export async function* liveEvents(api, sessionId, after, signal) {
  let pause = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      for await (const found of api.follow(sessionId, after, signal)) {
        after = found.number;
        pause = FIRST_PAUSE_MS;
        yield asTold(found);
        if (found.event_type === "session_stopped") return;
      }
      const session = await api.get(`v1/sessions/${sessionId}`, {}, { signal });
      if (session.state === "stopped") return;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status !== undefined && error.status < 500 && error.status !== 429) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(LONGEST_PAUSE_MS, 2 * pause);
  }
}

/** A stored event as the stream tells it. */
export function asTold({ number, event_type, timestamp_ms, payload }) {
  return { number, event: event_type, timestamp_ms, payload };
}
