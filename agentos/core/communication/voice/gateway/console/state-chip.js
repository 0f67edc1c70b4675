/** A state in a word, with a dot of its colour. */

import { element } from "./dom.js";

export function stateChip(state) {
  return element("span", { class: "chip", "data-state": state }, state);
}
