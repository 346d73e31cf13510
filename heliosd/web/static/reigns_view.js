/** Draws who led when: a strip, its table, and the time line beneath it, which chooses the moment that the page shows. */

import { pastCauseText } from "./causes.js";
import { colourOf } from "./colours.js";
import { byId, drawing, foreign, make, rows, timed, write } from "./dom.js";
import { lasting, timeOfEvent } from "./format.js";
import { choose, moment } from "./moment.js";
import { absent, began, seenAt, unwatched, withoutLeader } from "./reigns.js";

/** @typedef {import("./reigns.js").Span} Span */
/** @typedef {import("./model.js").Model} Model */

const [WIDTH, HEIGHT, ROWS_AT_MOST, NARROWEST] = [1000, 24, 100, 2];
let drawn = "";
/** What the time line reaches over now. */
let range = { begin: 0, end: 0 };
let shown = /** @type {Model | null} */ (null);

/** Let the time line act. */
export function bindTimeline() {
  const scrub = scrubber();
  scrub.addEventListener("input", () => {
    const share = Number(scrub.value) / Number(scrub.max);
    choose(share >= 1 ? null : range.begin + share * (range.end - range.begin));
  });
  byId("scrub-back").addEventListener("click", () => step(-1));
  byId("scrub-on").addEventListener("click", () => step(1));
  for (const id of ["scrub-now", "past-end"]) byId(id).addEventListener("click", () => choose(null));
}

/** Go to the moment of the change before or after the one that is shown. @param {-1 | 1} by */
export function step(by) {
  const times = (shown?.changes ?? []).map(seenAt);
  const at = moment() ?? Infinity;
  choose((by < 0 ? times.findLast((time) => time < at) : times.find((time) => time > at)) ?? (by < 0 ? at : null));
}

function scrubber() {
  return /** @type {HTMLInputElement} */ (byId("scrub"));
}

/** @param {Model} model */
export function showReigns(model) {
  shown = model;
  const all = model.spans;
  const { now } = model;
  const period = Number(/** @type {HTMLSelectElement} */ (byId("reigns-period")).value);
  const begin = period ? now - period * 1000 : (all[0]?.from ?? now);
  const spans = all.filter(({ to }) => (to ?? now) >= begin);
  range = { begin, end: now };
  byId("reigns-panel").hidden = all.length === 0;
  write(byId("reigns-summary"), summary(spans, begin, now));
  write(byId("reigns-begin"), timeOfEvent(begin));
  drawStrip(spans, begin, now);
  placeScrubber(all, now);
  const body = /** @type {HTMLElement} */ (byId("reigns").querySelector("tbody"));
  rows(
    body,
    spans.toReversed().slice(0, ROWS_AT_MOST).map((span) => [`${span.from} ${span.to} ${span.leader} ${span.term} ${span.unseen}`, span]),
    (_key, span) => makeRow(span),
    (row, span) => {
      timed(/** @type {HTMLElement} */ (row.children[1]), timeOfEvent(span.from), span.from);
      timed(/** @type {HTMLElement} */ (row.children[2]), span.to === null ? "now" : timeOfEvent(span.to), span.to);
      write(row.children[3], lasting((span.to ?? now) - span.from));
      write(row.children[4], span.leader ? pastCauseText(span.cause) : "");
    },
  );
}

/** @param {Span[]} all @param {number} now */
function placeScrubber(all, now) {
  const at = moment();
  const scrub = scrubber();
  const share = at === null ? 1 : Math.max(0, (at - range.begin) / Math.max(1, now - range.begin));
  if (document.activeElement !== scrub || at === null) scrub.value = String(Math.round(share * Number(scrub.max)));
  const span = at === null ? null : all.findLast(({ from }) => from <= at);
  const who = !span ? "not known" : span.unseen ? "not watched" : span.leader ? `${span.name} led` : "no leader";
  const says = at === null ? "Now" : `${timeOfEvent(at)}: ${who}`;
  timed(byId("scrub-text"), says, at);
  scrub.setAttribute("aria-valuetext", says);
  byId("scrub-now").hidden = at === null;
}

/** @param {Span[]} spans @param {number} begin @param {number} now */
function summary(spans, begin, now) {
  const absence = withoutLeader(spans, begin, now);
  const { times, since } = absence;
  const reigns = spans.filter(({ leader }) => leader).length;
  const last = spans.at(-1);
  const present = last?.leader ? began(spans, last) : null;
  const current = last && present ? `${last.name} has led for ${present.least ? "at least " : ""}${lasting(now - present.since)}. ` : "";
  const length = `${reigns} ${reigns === 1 ? "reign" : "reigns"} in ${lasting(now - begin)}`;
  const without = times ? `${absent(absence)} without a leader` : "never without a leader";
  return `${current}${length}, ${without}${unwatched(absence.unseenMs)}${since > begin + 1000 ? `, as far as is known: since ${timeOfEvent(since)}` : ""}.`;
}

/** @param {Span[]} spans @param {number} begin @param {number} now */
function drawStrip(spans, begin, now) {
  const scale = WIDTH / Math.max(1, now - begin);
  const shapes = spans.map(({ leader, name, from, to, cause, unseen }) => {
    const left = Math.max(0, (from - begin) * scale);
    const width = Math.max(NARROWEST, ((to ?? now) - Math.max(from, begin)) * scale);
    const kind = leader ? `reign ${colourOf(leader)}` : unseen ? "unseen" : "gap";
    const who = leader ? name : unseen ? "Not watched" : "No leader";
    const says = `${who}, ${lasting((to ?? now) - from)}${cause ? `, ${pastCauseText(cause)}` : ""}`;
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
  const leaders = new Map(spans.filter(({ leader }) => leader).map(({ leader, name }) => [leader, name]));
  byId("reigns-legend").replaceChildren(
    ...[...leaders].sort().map(([leader, name]) => make("li", { class: colourOf(leader) }, foreign(name))),
    make("li", { class: "gap" }, "no leader"),
    ...(spans.some(({ unseen }) => unseen) ? [make("li", { class: "unseen" }, "not watched")] : []),
  );
}

/** @param {Span} span */
function makeRow({ leader, name, term, unseen }) {
  return make(
    "tr",
    { "data-leader": leader },
    make("th", { scope: "row" }, leader ? foreign(name) : unseen ? "not watched" : "no leader", make("span", { class: "under" }, `term ${term}`)),
    make("td"),
    make("td", { class: "wide" }),
    make("td", { class: "number" }),
    make("td"),
  );
}
