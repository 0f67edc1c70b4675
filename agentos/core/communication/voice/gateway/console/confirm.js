/** Asks before something that can't be undone. */

import { element } from "./dom.js";

/** @returns {Promise<boolean>} whether it is wanted; Escape says no */
export function confirmed(question, { title, yes, no = "Cancel" }) {
  const dialog = element(
    "dialog",
    { "aria-labelledby": "dialog-title", "aria-describedby": "dialog-question" },
    element("h2", { id: "dialog-title" }, title),
    element("p", { id: "dialog-question" }, question),
    element(
      "div",
      { class: "buttons" },
      element("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, yes),
      element("button", { type: "button", autofocus: true, onclick: () => dialog.close("no") }, no),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
