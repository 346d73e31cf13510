/** Draws the strip of reigns and its table. */

import { byId, drawing, foreign, make, rows, write } from "./dom.js";
import { causeText } from "./causes.js";
import { lasting, timeOfEvent } from "./format.js";
import { spansOf } from "./reigns.js";

/** @typedef {import("./reigns.js").Span} Span */

const [WIDTH, HEIGHT, COLOURS, ROWS_AT_MOST] = [1000, 24, 6, 100];
const NARROWEST = 2;
let drawn = "";

/** @param {import("./model.js").Model} model */
export function showReigns({ changes }) {
  const period = Number(/** @type {HTMLSelectElement} */ (byId("reigns-period")).value);
  const now = Date.now();
  const all = spansOf(changes);
  const begin = period ? Math.max(now - period * 1000, all[0]?.from ?? now) : (all[0]?.from ?? now);
  const spans = all.filter(({ to }) => (to ?? now) >= begin);
  byId("reigns-panel").hidden = all.length === 0;
  write(byId("reigns-summary"), summary(spans, begin, now));
  drawStrip(all, spans, begin, now);
  const body = /** @type {HTMLElement} */ (byId("reigns").querySelector("tbody"));
  rows(
    body,
    spans.toReversed().slice(0, ROWS_AT_MOST).map((span) => [`${span.from} ${span.leader}`, span]),
    (_key, span) => makeRow(span),
    (row, span) => {
      write(row.children[2], span.to === null ? "now" : timeOfEvent(new Date(span.to).toISOString()));
      write(row.children[3], lasting((span.to ?? now) - span.from));
      write(row.children[4], causeText(span.cause));
    },
  );
}

/** @param {Span[]} spans @param {number} begin @param {number} now */
function summary(spans, begin, now) {
  const gaps = spans.filter(({ leader }) => !leader);
  const without = gaps.reduce((sum, { from, to }) => sum + (to ?? now) - Math.max(from, begin), 0);
  const reigns = spans.length - gaps.length;
  const last = spans.at(-1);
  const current = last?.leader ? `${last.name} has led for ${lasting(now - last.from)}. ` : "";
  const times = `${reigns} ${reigns === 1 ? "reign" : "reigns"} in ${lasting(now - begin)}`;
  return `${current}${times}, ${without ? `${lasting(without)} without a leader` : "never without a leader"}.`;
}

/** @param {Span[]} all @param {Span[]} spans @param {number} begin @param {number} now */
function drawStrip(all, spans, begin, now) {
  const leaders = [...new Set(all.map(({ leader }) => leader).filter(Boolean))].sort();
  const scale = WIDTH / Math.max(1, now - begin);
  const shapes = spans.map(({ leader, name, from, to, cause }) => {
    const left = Math.max(0, (from - begin) * scale);
    const width = Math.max(NARROWEST, ((to ?? now) - Math.max(from, begin)) * scale);
    const kind = leader ? `reign who-${leaders.indexOf(leader) % COLOURS}` : "gap";
    const says = `${leader ? name : "No leader"}, ${lasting((to ?? now) - from)}${cause ? `, ${causeText(cause)}` : ""}`;
    return { x: Math.min(left, WIDTH - NARROWEST).toFixed(1), width: width.toFixed(1), kind, says };
  });
  shapes.sort((one, other) => Number(one.kind === "gap") - Number(other.kind === "gap")); // gaps are drawn on top
  const key = JSON.stringify(shapes);
  if (key === drawn) return;
  drawn = key;
  byId("reigns-strip").replaceChildren(
    ...shapes.map(({ x, width, kind, says }) => {
      const bar = drawing("rect", { x, width, y: "0", height: String(HEIGHT), class: kind });
      const title = drawing("title", {});
      title.textContent = says;
      bar.append(title);
      return bar;
    }),
  );
  byId("reigns-legend").replaceChildren(
    ...leaders.map((leader, at) =>
      make("li", { class: `who-${at % COLOURS}` }, foreign(all.findLast((span) => span.leader === leader)?.name)),
    ),
    make("li", { class: "gap" }, "no leader"),
  );
}

/** @param {Span} span */
function makeRow({ leader, name, from, term }) {
  return make(
    "tr",
    { "data-leader": leader },
    make("th", { scope: "row" }, leader ? foreign(name) : "no leader", make("span", { class: "under" }, `term ${term}`)),
    make("td", {}, timeOfEvent(new Date(from).toISOString())),
    make("td"),
    make("td", { class: "number" }),
    make("td"),
  );
}
