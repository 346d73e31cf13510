/** Draws who leads, how the cluster is, its figures, and its peers. */

import { byId, clip, draw, foreign, make, rows, spark, write } from "./dom.js";
import { integer, milliseconds, text, timeOfDay } from "./format.js";
import { clusterHealth, health } from "./cluster_health.js";

/** @typedef {import("./model.js").Model} Model */

/** Draw everything, also when nothing is known (any more). @param {Model} model */
export function showCluster(model) {
  const { level, word, detail } = clusterHealth(model.status);
  byId("cluster-health").dataset.level = level;
  write(byId("cluster-health-word"), word);
  write(byId("cluster-health-detail"), detail);
  const status = model.status ?? {};
  const leader = byId("leader");
  const named = model.status ? status.leader || "none" : "–";
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
  showPeers(status, model.latencies);
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

/**
 * @param {any} status
 * @param {Model["latencies"]} latencies
 */
function showPeers(status, latencies) {
  const peers = status.peer_details ?? [];
  const body = /** @type {HTMLElement} */ (byId("peers").querySelector("tbody"));
  rows(
    body,
    peers.map((/** @type {any} */ peer) => [peer.id, peer]),
    makePeer,
    (row, peer) => {
      const latency = peer.latency ?? {};
      const { level, word } = health(peer);
      const parts = fields(row);
      row.dataset.health = level;
      parts.health.dataset.level = level;
      parts.leader.hidden = peer.id !== status.leader;
      write(parts.address, text(peer.address));
      write(parts["health-word"], word);
      const measured = latency.sample_count !== 0; // without samples the numbers are 0, which would look fast
      write(parts.avg, milliseconds(measured ? latency.avg_latency_ms : undefined));
      write(parts.p99, milliseconds(measured ? latency.p99_latency_ms : undefined));
      write(parts.match, integer(peer.match_index));
      write(parts.lag, behind(peer.match_index, status.commit_index));
      draw(row.getElementsByClassName("spark")[0], latencies.get(peer.id)?.values ?? []);
    },
  );
  write(byId("peers-count"), peers.length ? integer(peers.length) : "");
  byId("peers").hidden = peers.length === 0;
  write(
    byId("peers-empty"),
    status.peer_details ? "No peers: this node is the whole cluster." : "Not known yet.",
  );
  byId("peers-empty").hidden = peers.length > 0;
}

/**
 * The cells of a peer's row by their `data-field`.
 *
 * @param {HTMLElement} row
 * @returns {Record<string, HTMLElement>}
 */
function fields(row) {
  const found = /** @type {NodeListOf<HTMLElement>} */ (row.querySelectorAll("[data-field]"));
  return Object.fromEntries([...found].map((part) => [part.dataset.field, part]));
}

/** @param {string} id */
function makePeer(id) {
  return make(
    "tr",
    { "data-peer": clip(id) },
    make(
      "th",
      { scope: "row" },
      make("span", { class: "name" }, foreign(id)),
      make("span", { class: "tag leads-tag", "data-field": "leader", hidden: "" }, "leader"),
      make("bdi", { class: "under", "data-field": "address" }),
    ),
    make(
      "td",
      { "data-field": "health", class: "health" },
      make("span", { class: "mark", "aria-hidden": "true" }),
      make("span", { "data-field": "health-word" }),
    ),
    make("td", { class: "number", "data-field": "avg" }),
    make("td", { class: "number", "data-field": "p99" }),
    make("td", { class: "wide" }, spark()),
    make(
      "td",
      { class: "number" },
      make("span", { "data-field": "match" }),
      make("span", { class: "under", "data-field": "lag" }),
    ),
  );
}
