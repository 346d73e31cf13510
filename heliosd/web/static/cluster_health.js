/** One glance: is the cluster well. Values in, words out. */

import { hasQuorum } from "./members.js";
import { isLate } from "./lag.js";

/** @typedef {import("./members.js").Level} Level */
/** @typedef {{level: Level, word: string, detail: string}} ClusterHealth */

/**
 * @param {import("./scene.js").Scene} scene
 * @returns {ClusterHealth}
 */
export function clusterHealth({ status, members, leader, known, at }) {
  if (!status) return { level: "unknown", word: "Unknown", detail: "Nothing has been heard yet." };
  if (!known && at === null)
    return { level: "bad", word: "Not known", detail: `${status.observed_by}, which this page asks, is down. What the others do is not seen from it.` };
  if (!known) return { level: "unknown", word: "Not known", detail: "Nobody watched the cluster then." };
  if (!leader) return { level: "bad", word: "No leader", detail: "Nothing can be written until one is elected." };
  if (at === null && status.stale)
    return { level: "warn", word: "Stale", detail: `${status.observed_by} may be cut off from the leader.` };
  if (members.length && !hasQuorum(members)) return { level: "bad", word: "No quorum", detail: "" };
  const alarms = members.flatMap(({ name, peer }) => (peer.alarms ?? []).map((/** @type {string} */ alarm) => `${name}: ${alarm}`));
  if (alarms.length) return { level: "bad", word: "Alarm", detail: `${alarms.join(", ")}. etcd refuses writes until it is disarmed.` };
  if (members.some(({ answers }) => !answers)) return { level: "warn", word: "Degraded", detail: "" };
  const late = members.filter(({ lag }) => isLate(lag)).map(({ name }) => name);
  if (late.length) return { level: "warn", word: "Lagging", detail: `${late.join(", ")} ${late.length === 1 ? "is" : "are"} behind.` };
  if (at === null && status.warnings?.length) return { level: "warn", word: "Warning", detail: "What does not work is named below." };
  return { level: "ok", word: "Healthy", detail: "" };
}
