/** The only place that makes elements. Text enters the page as text nodes, so nothing a peer is named can be markup. */

import { fullTime } from "./format.js";

const LONGEST_TEXT = 300;
const SVG = "http://www.w3.org/2000/svg";
const [SPARK_WIDTH, SPARK_HEIGHT] = [72, 18];

/**
 * An element with attributes and children. A string child becomes text, cut when it is absurdly long.
 *
 * @param {string} name
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElement}
 */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.map((child) => (typeof child === "string" ? clip(child) : child)));
  return element;
}

/** A name from outside, kept from turning the direction of the text around it. @param {unknown} value */
export function foreign(value) {
  return make("bdi", {}, String(value));
}

/** @param {string} value */
export function clip(value) {
  return value.length > LONGEST_TEXT ? `${value.slice(0, LONGEST_TEXT)}…` : value;
}

/**
 * The element with this id, which index.html has.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element;
}

/**
 * Write text only where it changed, so that selections and screen readers are left in peace.
 *
 * @param {Element} element
 * @param {string} value
 */
export function write(element, value) {
  const clipped = clip(value);
  if (element.textContent !== clipped) element.textContent = clipped;
}

/** Write a text that names a time, which stands in full in its title. @param {HTMLElement} element @param {string} value @param {string | number | null | undefined} at */
export function timed(element, value, at) {
  write(element, value);
  const full = at === null || at === undefined ? "" : fullTime(at);
  if (element.title !== full) element.title = full;
}

/**
 * Make a table body's rows those of `items`, in order; a row is made once for a key and then only filled anew.
 *
 * @template T
 * @param {HTMLElement} body
 * @param {[string, T][]} items with unique keys
 * @param {(key: string, item: T) => HTMLElement} create
 * @param {(row: HTMLElement, item: T, key: string) => void} fill
 */
export function rows(body, items, create, fill) {
  /** @type {Map<string, HTMLElement>} */
  const old = new Map(
    [...body.children].map((row) => [row.getAttribute("data-key") ?? "", /** @type {HTMLElement} */ (row)]),
  );
  let next = body.firstElementChild;
  for (const [key, item] of items) {
    let row = old.get(key);
    old.delete(key);
    if (!row) {
      row = create(key, item);
      row.setAttribute("data-key", key);
    }
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
    fill(row, item, key);
  }
  while (next) {
    const gone = next;
    next = next.nextElementSibling;
    gone.remove();
  }
}

/**
 * The parts of an element by their `data-field`.
 *
 * @param {HTMLElement} element
 * @returns {Record<string, HTMLElement>}
 */
export function fieldsOf(element) {
  const found = /** @type {NodeListOf<HTMLElement>} */ (element.querySelectorAll("[data-field]"));
  return Object.fromEntries([...found].map((part) => [part.dataset.field, part]));
}

/** A button that shows a value small and copies it. @param {string} value @param {string} what its name */
export function copying(value, what) {
  const button = make("button", { type: "button", class: "copy", title: `Copy this ${what}` }, foreign(value));
  button.addEventListener("click", async () => {
    // Without a secure context there is no clipboard: the value is selected, to be copied by hand.
    getSelection()?.selectAllChildren(button);
    await navigator.clipboard?.writeText(value).catch(() => {});
    button.dataset.copied = "yes";
    setTimeout(() => delete button.dataset.copied, 1500);
  });
  return button;
}

/** An SVG element. @param {string} name @param {Record<string, string>} attributes */
export function drawing(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** An empty spark line; `draw` gives it its shape. */
export function spark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "polyline"));
  return svg;
}

/**
 * @param {Element} svg made by `spark`
 * @param {number[]} values oldest first; fewer than two draw nothing
 */
export function draw(svg, values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (/** @type {number} */ at) => (at * (SPARK_WIDTH - 2)) / (values.length - 1) + 1;
  const y = (/** @type {number} */ value) =>
    high === low ? SPARK_HEIGHT / 2 : SPARK_HEIGHT - 2 - ((value - low) / (high - low)) * (SPARK_HEIGHT - 4);
  const points =
    values.length < 2
      ? ""
      : values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  svg.firstElementChild?.setAttribute("points", points);
}

/** @type {WeakMap<Element, number>} */
const widths = new WeakMap();
const watcher = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) widths.set(target, contentRect.width);
});

/** The inner width of an element's parent, as of the last layout: asking for the present one would force a layout. @param {Element} element */
export function roomOf(element) {
  const parent = element.parentElement ?? element;
  const known = widths.get(parent);
  if (known === undefined) {
    watcher.observe(parent);
    widths.set(parent, parent.clientWidth);
  }
  return widths.get(parent) || parent.clientWidth;
}
