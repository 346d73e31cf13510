/** Draws who leads, how the cluster is, its figures, and its warnings. */

import { byId, clip, foreign, make, rows, write } from "./dom.js";
import { integer, text, timeOfDay } from "./format.js";
import { membersOf } from "./members.js";
import { clusterHealth } from "./cluster_health.js";

/** @typedef {import("./model.js").Model} Model */

/** Draw everything, also when nothing is known (any more). @param {Model} model */
export function showCluster(model) {
  const { level, word, detail } = clusterHealth(model.status);
  byId("cluster-health").dataset.level = level;
  write(byId("cluster-health-word"), word);
  write(byId("cluster-health-detail"), detail);
  const status = model.status ?? {};
  const leader = byId("leader");
  const named = model.status ? membersOf(status).find(({ leads }) => leads)?.name || status.leader || "none" : "–";
  leader.dataset.leader = clip(status.leader ?? "");
  if (leader.textContent !== clip(named)) leader.replaceChildren(foreign(named));
  write(byId("leader-detail"), model.status ? part(status) : "");
  field("term", integer(status.term));
  field("commit_index", integer(status.commit_index));
  field("last_applied", integer(status.last_applied) + behind(status.last_applied, status.commit_index));
  field("snapshot_last", status.snapshot_last === 0 ? "none" : integer(status.snapshot_last));
  field("uptime", text(status.uptime));
  field("clients", integer(status.clients));
  field("observed_by", text(status.observed_by));
  field("observed_at", timeOfDay(status.observed_at));
  byId("observed").hidden = !model.status;
  byId("stale").hidden = !status.stale;
  showWarnings(status.warnings ?? []);
}

/** What an operator should know or change. @param {string[]} warnings */
function showWarnings(warnings) {
  byId("warnings").hidden = warnings.length === 0;
  rows(
    byId("warnings"),
    [...new Set(warnings)].map((warning) => [warning, warning]),
    () => make("li"),
    (row, warning) => {
      if (row.textContent !== clip(warning)) row.replaceChildren(foreign(clip(warning)));
    },
  );
}

/** The part that the node we talk to plays. @param {any} status */
function part({ node_id, state, leader }) {
  if (state === "Leader" && leader === node_id) return "This node leads.";
  const roles = new Map([
    ["Observer", "an observer"],
    ["Down", "down"],
    ["Unknown", "in an unknown state"],
  ]);
  return `This node, ${node_id}, is ${roles.get(state) ?? `a ${String(state).toLowerCase()}`}.`;
}

/**
 * @param {string} name
 * @param {string} value
 */
function field(name, value) {
  const element = byId("cluster").querySelector(`[data-field="${name}"]`);
  if (element) write(element, value);
}

/**
 * How far one index lies behind another, or "".
 *
 * @param {unknown} index
 * @param {unknown} goal
 */
function behind(index, goal) {
  return typeof index === "number" && typeof goal === "number" && index < goal
    ? ` (−${integer(goal - index)})`
    : "";
}
