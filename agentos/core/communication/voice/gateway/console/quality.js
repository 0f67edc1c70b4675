/** How the audio of a session was, and where its frames went. */

import { card, element, facts } from "./dom.js";
import { decibels, number, share, shortened, spelled } from "./format.js";

const FRAMES_PER_SECOND = 50;

export function qualityCard({ quality, frames, drained, mismatches }) {
  const counted = (counts) => {
    const found = Object.entries(counts);
    return found.length === 0 ? "none" : found.map(([reason, count]) => `${number(count)} ${spelled(reason)}`).join(", ");
  };
  return card(
    "Quality",
    {},
    facts([
      ["Level", decibels(quality.level_dbfs)],
      ["Peak", decibels(quality.peak_dbfs)],
      ["Clipped", share(quality.clipped_share)],
      ["Silent", share(quality.silent_share)],
      ["Longest pause between arrivals", `${number(quality.longest_pause_ms)} ms`],
      ["Frames accepted", `${number(frames.accepted)} (${(frames.accepted / FRAMES_PER_SECOND).toFixed(1)} s)`],
      ["Frames recorded", number(frames.recorded)],
      ["Frames transcribed", number(frames.transcribed)],
      ["Dropped", counted(frames.dropped)],
      ["Not transcribed", counted(frames.untranscribed)],
      ...mismatches.map(({ reason, audio_ms, media_ms }) => [
        "Audio and clock",
        `${spelled(reason)}: ${number(audio_ms)} ms of it in ${number(media_ms)} ms`,
      ]),
      ["Drained in time", drained ? "yes" : "no"],
      ["SHA-256 of the audio", element("code", { title: frames.digest }, shortened(frames.digest, 16))],
    ]),
  );
}
