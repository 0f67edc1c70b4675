/** Who asks: a token, kept in this tab and nowhere else. */

import { alarm, element, field, fill } from "./dom.js";

export function signInView(shared) {
  const { api, show, signedOut } = shared;
  const token = element("input", {
    type: "password",
    id: "token",
    required: true,
    autocomplete: "off",
    spellcheck: false,
  });
  const told = element("div", { class: "told" }, signedOut === null ? null : alarm(signedOut));
  shared.signedOut = null;
  const button = element("button", { type: "submit", class: "primary" }, "Sign in");

  async function signIn(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      await api.signIn(token.value.trim());
      await show();
    } catch (error) {
      fill(told, alarm(error));
      token.focus();
      token.select();
    } finally {
      button.disabled = false;
    }
  }

  return {
    title: "Sign in",
    content: element(
      "div",
      { class: "narrow" },
      element("h1", {}, "Sign in"),
      element("p", { class: "lead" }, "This server asks who you are."),
      element(
        "form",
        { class: "card", onsubmit: signIn },
        field("Access token", token, "It begins with avt_ and stays in this tab: closing the tab forgets it."),
        told,
        button,
      ),
      element("p", { class: "hint" }, "Your operator makes one with ", element("code", {}, "agentos-voice token create NAME --role ROLE"), "."),
    ),
  };
}
