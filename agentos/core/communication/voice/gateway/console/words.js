/** Words as they come: finished ones stay and are read out by screen readers, a preview may still change and is not. */

import { element } from "./dom.js";
import { duration } from "./format.js";

/** @returns {{content: HTMLElement, show: (story: object) => void}} */
export function wordsPanel(waiting = "Words appear here while you speak.") {
  const list = element("div", { class: "words", role: "log", "aria-live": "polite", "aria-label": "Transcript" });
  const partial = element("p", { class: "partial", "aria-hidden": "true" });
  const empty = element("p", { class: "hint" }, waiting);
  const content = element("div", { class: "words-box", tabIndex: 0, role: "group", "aria-label": "Words, scrollable" }, list, partial, empty);
  const shown = new Set();

  function show({ finals, partial: preview, over }) {
    const atEnd = content.scrollHeight - content.scrollTop - content.clientHeight < 40;
    for (const { number, text, start_ms } of finals) {
      if (shown.has(number)) continue;
      shown.add(number);
      list.append(element("p", {}, element("time", {}, duration(start_ms / 1000)), " ", element("span", {}, text)));
    }
    partial.textContent = preview;
    partial.hidden = preview === "";
    empty.hidden = shown.size > 0 || preview !== "";
    if (over) empty.textContent = "No words were understood.";
    if (atEnd) content.scrollTop = content.scrollHeight;
  }

  return { content, show };
}
