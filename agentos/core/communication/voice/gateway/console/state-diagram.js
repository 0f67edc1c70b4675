/** A state machine as a drawing: its states in a row (in a column where there is little room), the current one lit. */

import { element, svg } from "./dom.js";
import { table } from "./table.js";

const BOX = { width: 116, height: 44 };
const STEP = { row: 168, column: 92 };
const BOW = 34; // from one bow to the next
const NARROW = 620; // pixels; below, the states stand under each other

/**
 * @param {object} machine as `about.json` gives it
 * @returns {{content: HTMLElement, light: (state: string, history: Array<{state: string}>) => void}}
 */
export function stateDiagram(machine) {
  const holder = element("div", { class: "diagram" });
  const narrow = matchMedia(`(max-width: ${NARROW}px)`);
  let lit = machine.initial;
  let path = [];

  function draw() {
    holder.replaceChildren(drawing(machine, lit, path, narrow.matches));
  }

  narrow.addEventListener("change", draw);
  draw();
  const content = element("div", {}, holder, movesOf(machine));
  return {
    content,
    light(state, history) {
      const states = history.map((step) => step.state);
      if (state === lit && states.length === path.length) return;
      lit = state;
      path = states;
      draw();
    },
    leave: () => narrow.removeEventListener("change", draw),
  };
}

function drawing(machine, lit, path, narrow) {
  const joints = jointsOf(machine);
  const lanes = joints.filter((joint) => joint.lane > 0).length;
  const length = (machine.states.length - 1) * (narrow ? STEP.column : STEP.row) + (narrow ? BOX.height : BOX.width);
  const depth = lanes * BOW + 12;
  const size = narrow
    ? { width: depth + BOX.width + 100, height: length + 52 }
    : { width: length + 60, height: depth + BOX.height + 30 };
  const place = (at) =>
    narrow
      ? { x: depth, y: 26 + at * STEP.column }
      : { x: 30 + at * STEP.row, y: depth };
  const visited = new Set(path);
  const taken = (joint) => path.some((state, at) => state === joint.source && path[at + 1] === joint.dest);
  const parts = joints.map((joint) => arrow(machine, joint, place, narrow, taken(joint)));
  const boxes = machine.states.map((state, at) => box(machine, state, place(at), { lit: state === lit, visited }));
  return svg(
    "svg",
    { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": `State of the ${machine.name}: ${lit}` },
    svg("defs", {}, head("head"), head("head-taken")),
    ends(machine, place, narrow),
    parts,
    boxes,
  );
}

/** All moves from one state to another; a bow has a lane of its own, counted from the inside. */
function jointsOf({ states, moves }) {
  const joints = new Map();
  for (const { source, dest, trigger } of moves) {
    const key = `${source} ${dest}`;
    if (!joints.has(key)) joints.set(key, { source, dest, triggers: [] });
    joints.get(key).triggers.push(trigger);
  }
  const span = ({ source, dest }) => Math.abs(states.indexOf(dest) - states.indexOf(source));
  let lane = 0;
  return [...joints.values()]
    .sort((one, other) => span(one) - span(other))
    .map((joint) => ({ ...joint, lane: states.indexOf(joint.dest) - states.indexOf(joint.source) === 1 ? 0 : ++lane }));
}

function arrow({ states }, { source, dest, triggers, lane }, place, narrow, taken) {
  const from = place(states.indexOf(source));
  const to = place(states.indexOf(dest));
  const label = triggers.length > 2 ? `${triggers.slice(0, 2).join(", ")} …` : triggers.join(", ");
  const style = { class: taken ? "move taken" : "move", "marker-end": `url(#${taken ? "head-taken" : "head"})` };
  if (lane === 0) {
    const line = narrow
      ? `M${from.x + BOX.width / 2} ${from.y + BOX.height} V${to.y}`
      : `M${from.x + BOX.width} ${from.y + BOX.height / 2} H${to.x}`;
    const at = narrow
      ? { x: from.x + BOX.width / 2 + 10, y: (from.y + BOX.height + to.y) / 2 + 4, "text-anchor": "start" }
      : { x: (from.x + BOX.width + to.x) / 2, y: from.y + BOX.height + 18, "text-anchor": "middle" };
    return [svg("path", { ...style, d: line }), svg("text", { ...at, class: "trigger" }, label)];
  }
  const apart = source === dest ? 28 : 0;
  if (narrow) {
    const [y1, y2, x] = [from.y + BOX.height / 2 - apart / 2, to.y + BOX.height / 2 + apart / 2, from.x - lane * BOW];
    return svg("path", { ...style, d: `M${from.x} ${y1} C${x} ${y1} ${x} ${y2} ${to.x} ${y2}` });
  }
  const [x1, x2, y] = [from.x + BOX.width / 2 - apart, to.x + BOX.width / 2 + apart, from.y - lane * BOW];
  return [
    svg("path", { ...style, d: `M${x1} ${from.y} C${x1} ${y} ${x2} ${y} ${x2} ${to.y}` }),
    svg("text", { x: (x1 + x2) / 2, y: from.y - lane * BOW * 0.75 - 6, "text-anchor": "middle", class: "trigger" }, label),
  ];
}

function box({ final, deadlines }, state, { x, y }, { lit, visited }) {
  const kind = ["state", lit ? "lit" : "", visited.has(state) ? "visited" : "", final.includes(state) ? "final" : ""];
  return svg(
    "g",
    { class: kind.filter(Boolean).join(" "), "data-state": state },
    svg("rect", { x, y, width: BOX.width, height: BOX.height, rx: 10 }),
    svg("text", { x: x + BOX.width / 2, y: y + (deadlines[state] ? 21 : 27), "text-anchor": "middle" }, state.toUpperCase()),
    deadlines[state]
      ? svg("text", { x: x + BOX.width / 2, y: y + 36, "text-anchor": "middle", class: "deadline" }, "has a deadline")
      : null,
  );
}

/** The mark of the beginning, and that of the end. */
function ends({ states, initial, final }, place, narrow) {
  const first = place(states.indexOf(initial));
  const dot = narrow
    ? { cx: first.x + BOX.width / 2, cy: first.y - 16 }
    : { cx: first.x - 18, cy: first.y + BOX.height / 2 };
  const rings = final.map((state) => {
    const { x, y } = place(states.indexOf(state));
    return narrow
      ? { cx: x + BOX.width / 2, cy: y + BOX.height + 16 }
      : { cx: x + BOX.width + 18, cy: y + BOX.height / 2 };
  });
  return svg(
    "g",
    { class: "ends" },
    svg("circle", { ...dot, r: 5 }),
    rings.map((ring) => [svg("circle", { ...ring, r: 8, class: "ring" }), svg("circle", { ...ring, r: 4 })]),
  );
}

function head(id) {
  return svg(
    "marker",
    { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" },
    svg("path", { d: "M0 0 L8 4 L0 8 z" }),
  );
}

/** The same in words: every move, and why it is made. */
function movesOf({ moves }) {
  const rows = table("Moves", ["From", "Move", "To", "Why"]);
  for (const { source, trigger, dest, why } of moves) rows.add([source, trigger, dest, why]);
  return element("details", {}, element("summary", {}, "Every move, in words"), rows.content);
}
