/** How loud it is: a bar for the level, a mark for the highest peak of the last second. */

import { element } from "./dom.js";
import { signed } from "./format.js";

const FLOOR = -60; // dBFS, the left end
const LOUD = -3; // above, it is too loud
const HOLD_MS = 1000;
const SAY_MS = 500; // how often the value is told to screen readers

/** @returns {{content: HTMLElement, show: (level: {rms: number, peak: number}) => void, clear: () => void}} */
export function levelMeter() {
  const bar = element("div", { class: "meter-bar" });
  const mark = element("div", { class: "meter-mark" });
  const figure = element("span", { class: "meter-figure" }, "no sound");
  const track = element(
    "div",
    {
      class: "meter",
      role: "meter",
      "aria-label": "Microphone level in decibels",
      "aria-valuemin": FLOOR,
      "aria-valuemax": 0,
      "aria-valuenow": FLOOR,
      "aria-valuetext": "no sound",
    },
    bar,
    mark,
  );
  let highest = FLOOR;
  let heldUntil = 0;
  let saidAt = 0;
  const along = (value) => Math.max(0, Math.min(1, 1 - value / FLOOR));

  function show({ rms, peak }) {
    const now = performance.now();
    if (peak >= highest || now > heldUntil) {
      highest = peak;
      heldUntil = now + HOLD_MS;
    }
    bar.style.transform = `scaleX(${along(rms)})`;
    mark.style.left = `${100 * along(highest)}%`;
    mark.hidden = highest <= FLOOR;
    track.classList.toggle("loud", highest > LOUD);
    if (now - saidAt < SAY_MS) return;
    saidAt = now;
    figure.textContent = rms <= FLOOR ? "silence" : `${signed(rms, 0)} dBFS`;
    track.setAttribute("aria-valuenow", Math.round(Math.max(FLOOR, rms)));
    track.setAttribute("aria-valuetext", highest > LOUD ? `${figure.textContent}, too loud` : figure.textContent);
  }

  function clear() {
    highest = FLOOR;
    saidAt = 0;
    bar.style.transform = "scaleX(0)";
    mark.hidden = true;
    track.classList.remove("loud");
    figure.textContent = "no sound";
    track.setAttribute("aria-valuenow", FLOOR);
    track.setAttribute("aria-valuetext", "no sound");
  }

  clear();
  return { content: element("div", { class: "meter-row" }, track, figure), show, clear };
}
