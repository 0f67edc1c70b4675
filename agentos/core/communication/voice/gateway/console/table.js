/** A table that can be scrolled, also by keys; on a narrow screen each row is a list with the names of the columns. */

import { element } from "./dom.js";

/** @returns {{content: HTMLElement, add: (cells: Array) => void}} */
export function table(label, columns) {
  const body = element("tbody", {});
  const head = element("tr", {}, columns.map((name) => element("th", { scope: "col" }, name)));
  return {
    content: element(
      "div",
      { class: "scroll", tabIndex: 0, role: "group", "aria-label": `${label}, scrollable` },
      element("table", {}, element("thead", {}, head), body),
    ),
    add: (cells) => body.append(element("tr", {}, cells.map((cell, at) => element("td", { "data-column": columns[at] }, cell)))),
  };
}
