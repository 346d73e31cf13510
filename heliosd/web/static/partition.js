/** Lets a person draw a line through the cluster's picture, which then parts the members on its two sides. */

import { byId, drawing } from "./dom.js";
import { leftOf } from "./outline.js";
import { nodes } from "./picture_view.js";

/** @typedef {import("./outline.js").Point} Point */

const SHORTEST = 20;

/** @param {(groups: [string[], string[]]) => void} parted called with the ids on both sides */
export function bindPartition(parted) {
  const svg = /** @type {SVGSVGElement} */ (/** @type {unknown} */ (byId("picture")));
  const button = byId("partition");
  /** @type {Point | null} */
  let from = null;
  /** @type {SVGElement | null} */
  let line = null;
  const stop = () => {
    from = null;
    line?.remove();
    button.setAttribute("aria-pressed", "false");
    svg.removeAttribute("data-drawing");
  };
  button.addEventListener("click", () => {
    if (svg.hasAttribute("data-drawing")) return stop();
    button.setAttribute("aria-pressed", "true");
    svg.setAttribute("data-drawing", "");
  });
  svg.addEventListener("pointerdown", (event) => {
    if (!svg.hasAttribute("data-drawing")) return;
    event.preventDefault();
    svg.setPointerCapture(event.pointerId);
    from = pointOf(svg, event);
    line = drawing("line", { class: "cut", x1: String(from.x), y1: String(from.y), x2: String(from.x), y2: String(from.y) });
    svg.append(line);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!from || !line) return;
    const { x, y } = pointOf(svg, event);
    line.setAttribute("x2", String(x));
    line.setAttribute("y2", String(y));
    if (!line.isConnected) svg.append(line); // the picture was drawn anew meanwhile
  });
  svg.addEventListener("pointerup", (event) => {
    if (!from) return;
    const groups = groupsOf(from, pointOf(svg, event));
    stop();
    if (groups) parted(groups);
  });
  addEventListener("keydown", (event) => event.key === "Escape" && stop());
}

/** @param {SVGSVGElement} svg @param {PointerEvent} event @returns {Point} in the picture's own units */
function pointOf(svg, { clientX, clientY }) {
  const box = svg.getBoundingClientRect();
  const { width, height } = svg.viewBox.baseVal;
  return { x: ((clientX - box.left) * width) / box.width, y: ((clientY - box.top) * height) / box.height };
}

/** The first member's side first; null where the line is too short or leaves all members on one side. @param {Point} from @param {Point} to @returns {[string[], string[]] | null} */
function groupsOf(from, to) {
  if (Math.hypot(to.x - from.x, to.y - from.y) < SHORTEST) return null;
  const sides = leftOf(nodes.map(({ at }) => at), from, to);
  const ids = (/** @type {boolean} */ side) => nodes.filter((_, at) => sides[at] === side).map(({ member }) => member.id);
  const [own, other] = [ids(sides[0]), ids(!sides[0])];
  return other.length ? [own, other] : null;
}
