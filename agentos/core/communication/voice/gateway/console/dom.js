/** Elements without a template language: text is always text, never markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Properties that begin with `on` are listeners; `class`, `for`, `aria-…` and `data-…` are attributes, as is all that
 * the element has no property for; null and undefined leave one out.
 * @param {string} name
 * @param {object} [properties]
 * @param {...(Node|string|number|null|Array)} children
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list" && key !== "role") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...flat(children));
  return made;
}

/** An SVG element; all properties are attributes. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...flat(children));
  return made;
}

/** A card: a section with a heading. */
export function card(title, { id = null, wide = false, action = null } = {}, ...children) {
  const heading = `${id ?? title.toLowerCase().replace(/\W+/g, "-")}-heading`;
  return element(
    "section",
    { class: wide ? "card wide" : "card", "aria-labelledby": heading, id },
    element("div", { class: "card-top" }, element("h2", { id: heading }, title), action),
    ...children,
  );
}

/** Names and values; a value may be an element, and null leaves the pair out. */
export function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined);
  return element(
    "dl",
    { class: "facts" },
    rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

/** A label, its control, and a hint that belongs to it. */
export function field(label, control, hint = null) {
  if (hint !== null) control.setAttribute("aria-describedby", `${control.id}-hint`);
  return element(
    "div",
    { class: "field" },
    element("label", { for: control.id }, label),
    control,
    hint === null ? null : element("p", { class: "hint", id: `${control.id}-hint` }, hint),
  );
}

/** A tick box with its label behind it. */
export function tick(label, properties, hint = null) {
  const box = element("input", { type: "checkbox", ...properties });
  const parts = [element("label", { class: "tick" }, box, element("span", {}, label))];
  if (hint !== null) {
    box.setAttribute("aria-describedby", `${box.id}-hint`);
    parts.push(element("p", { class: "hint", id: `${box.id}-hint` }, hint));
  }
  return element("div", { class: "field" }, ...parts);
}

/** A choice of `[value, text]` pairs. */
export function choice(properties, options) {
  return element("select", properties, options.map(([value, text]) => element("option", { value }, text)));
}

/** What went wrong, said at once by screen readers. An error of the API has a title and a detail. */
export function alarm({ title = "That did not work", message }) {
  return element("div", { class: "notice bad", role: "alert" }, element("strong", {}, title), sentence(message));
}

/** What the server says, as a sentence: it begins with a capital and ends with a full stop; code stands in backticks. */
export function sentence(text) {
  const whole = `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
  return element("p", {}, whole.split("`").map((part, at) => (at % 2 === 0 ? part : element("code", {}, part))));
}

/** Put these in the place of what is in `parent`. */
export function fill(parent, ...children) {
  parent.replaceChildren(...flat(children));
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined).map((child) =>
    child instanceof Node ? child : String(child),
  );
}
