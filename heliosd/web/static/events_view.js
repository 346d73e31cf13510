/** Draws the list of what happened, newest first. */

import { byId, foreign, make, rows, write } from "./dom.js";
import { causeText } from "./causes.js";
import { bytes, fullTime, integer, lasting, milliseconds, timeOfEvent } from "./format.js";
import { linesOf, lostLeader, seenAt } from "./reigns.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Entry} Entry */
/** @typedef {import("./reigns.js").Line} Line */
/** @typedef {{kind: string, level: "ok" | "warn" | "bad" | "unknown", says: (Node | string)[]}} Said */

const PEER_LEVELS = new Map([
  ["healthy", "ok"],
  ["added", "ok"],
  ["promoted", "ok"],
  ["unhealthy", "bad"],
  ["removed", "warn"],
]);

/** Which chip shows a type; a note of the page itself is always shown. @type {Map<string, string>} */
const CHIPS = new Map([
  ["state_change", "state"],
  ["peer_change", "peers"],
  ["snapshot", "snapshots"],
  ["custom_metrics", "metrics"],
]);
const PAGE = 200;
/** @type {Set<string>} */
const hiddenChips = new Set();
/** What is shown while paused. @type {{model: Model, entries: Entry[]} | null} */
let paused = null;
let shownModel = /** @type {Model | null} */ (null);
let atMost = PAGE;

/** Let the chips, the pause and the paging act. @param {() => void} redraw @param {(model: Model) => Promise<void>} load earlier events */
export function bindEvents(redraw, load) {
  byId("events-earlier").addEventListener("click", async () => {
    const model = shownModel;
    if (!model) return;
    atMost += PAGE;
    const listed = model.events.length + model.earlier.length;
    if (listed < atMost && model.oldestListed > model.oldestSeq) await load(model);
    redraw();
  });
  for (const chip of chips()) {
    chip.addEventListener("click", () => {
      const name = String(chip.dataset.chip);
      if (!hiddenChips.delete(name)) hiddenChips.add(name);
      chip.setAttribute("aria-pressed", String(!hiddenChips.has(name)));
      redraw();
    });
  }
  byId("events-pause").addEventListener("click", () => {
    paused = paused || !shownModel ? null : { model: shownModel, entries: [...shownModel.events, ...shownModel.earlier] };
    redraw();
  });
}

function chips() {
  return /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-chip]"));
}

/** The day on which the list was drawn last. */
let drawnDay = "";

/** @param {Model} model */
export function showEvents(model) {
  if (shownModel !== model) [paused, atMost] = [null, PAGE]; // another session
  shownModel = model;
  const listed = paused ? withEarlier(paused.entries, model.earlier) : [...model.events, ...model.earlier];
  const chosen = listed.filter(({ type }) => !hiddenChips.has(CHIPS.get(type) ?? ""));
  // A few more than are shown, since a loss and its election become one line.
  const all = linesOf(chosen.slice(0, 2 * atMost), model.names);
  const shown = all.slice(0, atMost);
  // A line never changes once written, so only the new ones are made; but a time is without its date today only.
  const today = new Date().toDateString();
  const isNewDay = today !== drawnDay;
  drawnDay = today;
  rows(
    byId("events"),
    shown.map((line) => [line.key, line]),
    (_key, line) => makeLine(line),
    (row, { entry }) => {
      if (isNewDay) write(/** @type {HTMLElement} */ (row.querySelector("time")), timeOfEvent(entry.timestamp));
    },
  );
  write(byId("events-count"), shown.length ? integer(shown.length) : "");
  byId("events-earlier").hidden = shown.length === all.length && model.oldestListed <= model.oldestSeq;
  byId("events").hidden = shown.length === 0;
  byId("events-empty").hidden = shown.length > 0;
  write(byId("events-empty"), listed.length ? "None of the chosen kinds." : "None yet. What happens in the cluster is listed here.");
  const top = paused ? Math.max(0, ...paused.entries.map(({ id }) => id)) : 0;
  const missed = paused ? model.events.filter(({ id }) => id > top).length : 0;
  const button = byId("events-pause");
  button.setAttribute("aria-pressed", String(paused !== null));
  write(button, paused ? `Resume (${missed} new)` : "Pause");
}

/** What was shown when the list was paused, and what was loaded beneath it since. @param {Entry[]} shown @param {Entry[]} earlier */
function withEarlier(shown, earlier) {
  const known = new Set(shown);
  return [...shown, ...earlier.slice(earlier.findLastIndex((entry) => known.has(entry)) + 1)];
}

/** @param {Line} line */
function makeLine(line) {
  const { entry, loss } = line;
  const { kind, level, says } = loss ? describeLoss(line, loss) : describe(entry);
  const attributes = { "data-type": entry.type, "data-level": level };
  const seq =
    entry.seq === undefined
      ? make("span", { class: "seq" })
      : make("a", { class: "seq", id: `event-${entry.seq}`, href: `#event-${entry.seq}`, title: "Link to this event" }, loss?.seq === undefined || loss.seq === entry.seq ? `#${entry.seq}` : `#${loss.seq}–${entry.seq}`);
  return make(
    "li",
    entry.seq === undefined ? attributes : { ...attributes, "data-seq": String(entry.seq) },
    make("time", { datetime: entry.timestamp, title: fullTime(entry.timestamp) }, timeOfEvent(entry.timestamp)),
    seq,
    make("span", { class: "kind" }, make("span", { class: "mark", "aria-hidden": "true" }), kind),
    make("span", { class: "says" }, ...says, ...(entry.provisional ? [" ", make("span", { class: "tag", title: "Not in the cluster's log yet" }, "provisional")] : [])),
  );
}

/**
 * A time without a leader, from the loss to the election.
 *
 * @param {Line} line
 * @param {Entry} loss its first entry
 * @returns {Said}
 */
function describeLoss({ entry, open, was }, loss) {
  const { cause } = loss.data;
  const leader = entry.data.leader_name || named(entry.data.leader);
  const length = lasting(seenAt(entry) - seenAt(loss));
  const term = [" ", quiet(`term ${integer(entry.data.term)}`)];
  const lost = was ? [name(was), " lost", ...why(cause)] : ["No leader", ...why(cause)];
  if (open) return { kind: "state", level: "bad", says: [...lost, was ? "; no leader" : "", ...term] };
  if (cause === "transfer" && was)
    return { kind: "state", level: "unknown", says: [name(was), " → ", name(leader), `, planned, ${length}`, ...term] };
  return { kind: "state", level: "warn", says: [...lost, "; ", name(leader), ` leads after ${length}`, ...term] };
}

/**
 * @param {Entry} entry
 * @returns {Said}
 */
function describe({ type, data }) {
  switch (type) {
    case "state_change":
      return describeState(data);
    case "peer_change": {
      const level = /** @type {Said["level"]} */ (PEER_LEVELS.get(data.event_type) ?? "unknown");
      const says = [name(data.peer_name || named(data.peer_id)), ` ${data.event_type}`, ...why(data.cause), " "];
      return { kind: "peer", level, says: [...says, quiet(data.peer_address)] };
    }
    case "snapshot": {
      const failed = data.success === false;
      const how = failed ? `failed: ${data.error_message ?? "no reason given"}` : data.type || "taken";
      const size = `${bytes(data.size_bytes)}, ${milliseconds(data.duration_ms)} ms`;
      return {
        kind: "snapshot",
        level: failed ? "bad" : "unknown",
        says: [`${how} at index ${integer(data.index)} `, quiet(size)],
      };
    }
    case "custom_metrics":
      return { kind: "metric", level: "unknown", says: Object.entries(data).flatMap(describeMetric) };
    default:
      return { kind: "note", level: "warn", says: [String(data)] };
  }
}

/**
 * @param {any} data
 * @returns {Said}
 */
function describeState(data) {
  const { member, old_state, new_state, term, leader, cause } = data;
  const lost = lostLeader(data, shownModel?.names ?? new Map());
  if (lost) return { kind: "state", level: "bad", says: [name(lost), " lost", ...why(cause), "; no leader ", quiet(`term ${integer(term)}`)] };
  if (leader && leader !== member && old_state === new_state)
    return { kind: "state", level: "ok", says: [name(named(leader)), " leads ", quiet(`term ${integer(term)}`)] };
  const who = member ? [name(named(member)), " "] : [];
  const change = old_state === new_state ? `stays ${new_state}` : `${old_state} → ${new_state}`;
  const led = leader && leader === member && new_state === "Leader";
  const unknown = new_state === "Down" ? [", what the others do is not seen"] : old_state === "Down" ? [] : [", no leader"];
  const leads = led ? [] : leader ? [", leader ", name(named(leader))] : unknown;
  return {
    kind: "state",
    level: leader || unknown.length === 0 ? "ok" : "bad",
    says: [...who, change, ...leads, ...(leader || unknown.length === 0 || new_state === "Down" ? [] : why(cause)), " ", quiet(`term ${integer(term)}`)],
  };
}

/** @param {unknown} cause */
function why(cause) {
  const words = causeText(cause);
  return words ? [": ", words] : [];
}

/** @param {[string, any]} item */
function describeMetric([metric, view]) {
  return view === null ? [name(metric), " deleted "] : [name(metric), " registered ", quiet(view.type), " "];
}

/** A member's name, if it has one. @param {string} id */
function named(id) {
  return shownModel?.names.get(id) ?? id;
}

/** @param {unknown} value */
function name(value) {
  return make("strong", {}, foreign(value));
}

/** @param {unknown} value */
function quiet(value) {
  return make("span", { class: "quiet" }, foreign(value ?? ""));
}
