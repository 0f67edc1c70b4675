/** The console: which view is shown, and what they share. A view is a function that gives `{title, content, leave}`. */

import { Api } from "./api.js";
import { alarm, element, fill } from "./dom.js";
import { callOnTheServer, callView } from "./view-call.js";
import { newCallView } from "./view-new-call.js";
import { sessionView } from "./view-session.js";
import { sessionsView } from "./view-sessions.js";
import { signInView } from "./view-sign-in.js";

const VIEWS = { sessions: sessionsView, new: newCallView, call: callView };

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const signOut = document.getElementById("sign-out");
const toCall = document.getElementById("to-call");

/** What every view gets: the API, what the server says of itself, the call of this page, if any, and why one must sign in again. */
const shared = {
  api: new Api(),
  about: null,
  call: null,
  signedOut: null,
  setCall(call) {
    shared.call?.close();
    shared.call = call;
    const mark = () => {
      toCall.hidden = shared.call === null || shared.call.over;
    };
    call?.addEventListener("change", mark);
    mark();
  },
};

let leave = () => {};
let shown = 0;

function viewOf(hash) {
  const [, name = "", id] = hash.replace(/^#/, "").split("/");
  if (shared.about.authentication && !shared.api.signedIn) return [signInView, null];
  if (name === "sessions" && id) return [sessionView, decoded(id)];
  return [VIEWS[name] ?? sessionsView, null];
}

function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return id; // no session has such a name
  }
}

async function show({ focus = true } = {}) {
  const turn = ++shown;
  leave();
  leave = () => {};
  const [view, id] = viewOf(location.hash);
  nav.hidden = view === signInView;
  signOut.hidden = !shared.api.signedIn;
  for (const link of nav.querySelectorAll("a")) {
    if (link.hash === (location.hash || "#/sessions")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.setAttribute("aria-busy", "true");
  let made;
  try {
    made = await view(shared, id);
  } catch (error) {
    const back = element("a", { class: "button", href: "#/sessions" }, "All sessions");
    made = { title: "Not available", content: [element("h1", {}, "Not available"), alarm(error), back] };
  }
  if (turn !== shown) {
    made.leave?.();
    return;
  }
  leave = made.leave ?? leave;
  document.title = `${made.title} · agentos-voice`;
  fill(main, made.content);
  main.removeAttribute("aria-busy");
  if (!focus) return;
  const heading = main.querySelector("h1");
  heading.tabIndex = -1;
  heading.focus();
  scrollTo(0, 0);
}

shared.show = show;
shared.api.addEventListener("signed-out", ({ detail }) => {
  shared.api.signOut();
  shared.signedOut = detail;
  show();
});
signOut.addEventListener("click", () => {
  shared.setCall(null);
  shared.api.signOut();
  show();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address holds the view
  main.focus();
});
addEventListener("hashchange", () => show());
addEventListener("beforeunload", (event) => {
  if (shared.call !== null && !shared.call.over) event.preventDefault();
});

try {
  shared.about = await shared.api.about();
  document.getElementById("version").textContent = `agentos-voice ${shared.about.version}`;
  if ((!shared.about.authentication || shared.api.signedIn) && (await callOnTheServer(shared.api)) !== null) location.hash = "#/call";
  await show({ focus: false });
} catch (error) {
  fill(main, element("h1", {}, "The server does not answer"), alarm(error));
}
