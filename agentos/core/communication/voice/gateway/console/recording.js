/** A recording: its wave, drawn from the decoded sound, and the browser's own player below it. */

import { alarm, card, element, fill, svg } from "./dom.js";
import { duration, number } from "./format.js";

const COLUMNS = 300; // of the wave
const HEIGHT = 96;
const QUIET = 0.05; // a recording that is nowhere louder is drawn as quiet as it is, not as loud as it can be
const AT_ONCE_SECONDS = 600; // a longer one is fetched when it is asked for

/** @returns {{content: HTMLElement, leave: () => void}} */
export function recordingCard(api, sessionId, info) {
  const body = element("div", { class: "stack" });
  let url = null;
  const leaving = new AbortController();

  async function load() {
    const waits = info.state === "finishing" ? "The recording is being finished…" : "Fetching the recording…";
    fill(body, element("p", { class: "hint", role: "status" }, waits));
    try {
      const blob = await api.recording(sessionId, leaving.signal);
      const wave = peaksOf(await decoded(await blob.arrayBuffer(), info.sample_rate));
      if (leaving.signal.aborted) return;
      url = URL.createObjectURL(blob);
      fill(body, player(url, wave, info, `${sessionId}.${blob.type.split("/")[1]}`));
    } catch (error) {
      if (!leaving.signal.aborted) fill(body, alarm(error));
    }
  }

  if (info === null) fill(body, element("p", { class: "hint" }, "This session has no recording."));
  else if (info.state === "failed") fill(body, element("p", { class: "hint" }, "The recording is damaged and can't be played."));
  else if (info.seconds <= AT_ONCE_SECONDS) load();
  else fill(body, element("button", { type: "button", onclick: load }, `Fetch ${duration(info.seconds)} of sound`));
  return {
    content: card("Recording", { wide: true }, body),
    leave() {
      leaving.abort();
      if (url !== null) URL.revokeObjectURL(url);
    },
  };
}

async function decoded(bytes, sampleRate) {
  const context = new OfflineAudioContext(1, 1, Math.max(8000, sampleRate));
  return context.decodeAudioData(bytes);
}

/** The highest sample of each column, from 0 to 1. */
function peaksOf(buffer) {
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, at) => buffer.getChannelData(at));
  const columns = Math.min(COLUMNS, buffer.length);
  return Array.from({ length: columns }, (_, column) => {
    const [from, to] = [column, column + 1].map((at) => Math.floor((at * buffer.length) / columns));
    let highest = 0;
    for (const samples of channels) {
      for (let at = from; at < to; at++) highest = Math.max(highest, Math.abs(samples[at]));
    }
    return highest;
  });
}

function player(url, peaks, { seconds, sample_rate, samples, channels, gaps }, name) {
  const audio = element("audio", { src: url, controls: true, preload: "auto", "aria-label": "Recording" });
  const bars = waveOf(peaks);
  const played = svg("rect", { x: 0, y: 0, width: 0, height: HEIGHT });
  const wave = svg(
    "svg",
    { viewBox: `0 0 ${COLUMNS} ${HEIGHT}`, preserveAspectRatio: "none", class: "wave", "aria-hidden": "true" },
    svg("defs", {}, svg("clipPath", { id: "played" }, played)),
    gaps.map(([first, count]) =>
      svg("rect", {
        x: (COLUMNS * first) / samples,
        y: 0,
        width: Math.max(1, (COLUMNS * count) / samples),
        height: HEIGHT,
        class: "wave-gap",
      }),
    ),
    svg("path", { d: bars, class: "wave-all" }),
    svg("path", { d: bars, class: "wave-played", "clip-path": "url(#played)" }),
  );
  const where = () => played.setAttribute("width", (COLUMNS * audio.currentTime) / seconds);
  let frame = 0;
  const follow = () => {
    where();
    frame = audio.paused ? 0 : requestAnimationFrame(follow);
  };
  audio.addEventListener("play", () => {
    if (frame === 0) follow();
  });
  audio.addEventListener("seeked", where);
  wave.addEventListener("click", (event) => {
    const { left, width } = wave.getBoundingClientRect();
    audio.currentTime = (seconds * (event.clientX - left)) / width;
  });
  const lost = gaps.reduce((sum, [, count]) => sum + count, 0) / sample_rate;
  const told = `${duration(seconds)}, ${number(sample_rate)} Hz, ${channels === 1 ? "mono" : `${channels} channels`}; `;
  return [
    wave,
    audio,
    element(
      "p",
      { class: "hint" },
      told,
      gaps.length === 0 ? "no gaps. " : `${gaps.length} gaps, ${duration(lost)} of silence put in. `,
      element("a", { href: url, download: name }, "Download"),
    ),
  ];
}

/** One bar a column, from the middle up and down; the loudest fills the height. */
function waveOf(peaks) {
  const width = COLUMNS / peaks.length;
  const loudest = peaks.reduce((one, other) => Math.max(one, other), QUIET);
  return peaks
    .map((peak, at) => {
      const half = Math.max(0.75, (peak / loudest) * (HEIGHT / 2 - 4));
      return `M${(at * width).toFixed(2)} ${(HEIGHT / 2 - half).toFixed(2)}h${(width * 0.7).toFixed(2)}v${(2 * half).toFixed(2)}h${(-width * 0.7).toFixed(2)}z`;
    })
    .join("");
}
