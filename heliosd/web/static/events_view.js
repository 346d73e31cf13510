/** Draws the list of what happened, newest first. */

import { byId, foreign, make, rows } from "./dom.js";
import { bytes, integer, milliseconds, timeOfEvent } from "./format.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Entry} Entry */
/** @typedef {{kind: string, level: "ok" | "warn" | "bad" | "unknown", says: (Node | string)[]}} Line */

/** Why the leader before was lost, in words. */
const CAUSES = new Map([
  ["transfer", "planned"],
  ["stopped", "it does not answer"],
  ["unreachable", "it is cut off"],
  ["stepped_down", "it stepped down"],
  ["removed", "it was removed"],
]);
const PEER_LEVELS = new Map([
  ["healthy", "ok"],
  ["added", "ok"],
  ["promoted", "ok"],
  ["unhealthy", "bad"],
  ["removed", "warn"],
]);

/** @param {Model} model */
export function showEvents({ events }) {
  // A line never changes once written, so only the new ones are made.
  rows(
    byId("events"),
    events.map((entry) => [String(entry.id), entry]),
    (_key, entry) => makeLine(entry),
    () => {},
  );
  byId("events-count").textContent = events.length ? String(events.length) : "";
  byId("events").hidden = events.length === 0;
  byId("events-empty").hidden = events.length > 0;
}

/** @param {Entry} entry */
function makeLine(entry) {
  const { kind, level, says } = describe(entry);
  const attributes = { "data-type": entry.type, "data-level": level };
  const seq = entry.seq === undefined ? "" : `#${entry.seq}`;
  return make(
    "li",
    entry.seq === undefined ? attributes : { ...attributes, "data-seq": String(entry.seq) },
    make("time", { datetime: entry.timestamp, title: entry.timestamp }, timeOfEvent(entry.timestamp)),
    make("span", { class: "seq", title: "sequence number" }, seq),
    make("span", { class: "kind" }, make("span", { class: "mark", "aria-hidden": "true" }), kind),
    make("span", { class: "says" }, ...says, ...(entry.provisional ? [" ", quiet("provisional")] : [])),
  );
}

/**
 * @param {Entry} entry
 * @returns {Line}
 */
function describe({ type, data }) {
  switch (type) {
    case "state_change":
      return describeState(data);
    case "peer_change": {
      const level = /** @type {Line["level"]} */ (PEER_LEVELS.get(data.event_type) ?? "unknown");
      return {
        kind: "peer",
        level,
        says: [name(data.peer_id), ` ${data.event_type} `, quiet(data.peer_address)],
      };
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
 * @returns {Line}
 */
function describeState({ member, old_state, new_state, term, leader, cause }) {
  const who = member ? [name(member), " "] : [];
  const change = old_state === new_state ? `stays ${new_state}` : `${old_state} → ${new_state}`;
  const led = leader && leader === member && new_state === "Leader";
  const leads = led ? [] : leader ? [", leader ", name(leader)] : [", no leader"];
  return {
    kind: "state",
    level: leader ? "ok" : "bad",
    says: [...who, change, ...leads, ...why(cause), " ", quiet(`term ${integer(term)}`)],
  };
}

/** @param {unknown} cause */
function why(cause) {
  const words = CAUSES.get(String(cause));
  return words ? [": ", words] : [];
}

/** @param {[string, any]} item */
function describeMetric([metric, view]) {
  return view === null ? [name(metric), " deleted "] : [name(metric), " registered ", quiet(view.type), " "];
}

/** @param {unknown} value */
function name(value) {
  return make("strong", {}, foreign(value));
}

/** @param {unknown} value */
function quiet(value) {
  return make("span", { class: "quiet" }, foreign(value ?? ""));
}
