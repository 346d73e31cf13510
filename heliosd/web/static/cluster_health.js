/** One glance: who leads, and is the cluster well. Values in, words out. */

/** @typedef {"ok" | "warn" | "bad" | "unknown"} Level */
/** @typedef {{level: Level, word: string, detail: string}} ClusterHealth */

/**
 * @param {any} status the data of a status message, or null
 * @returns {ClusterHealth}
 */
export function clusterHealth(status) {
  if (!status) return { level: "unknown", word: "Unknown", detail: "Nothing has been heard yet." };
  const peers = status.peer_details ?? [];
  const ill = peers.filter((/** @type {any} */ peer) => health(peer).level === "bad");
  const members = peers.length + 1;
  const well = members - ill.length;
  if (!status.leader)
    return { level: "bad", word: "No leader", detail: "Nothing can be written until one is elected." };
  if (status.stale)
    return { level: "warn", word: "Stale", detail: `${status.observed_by} may be cut off from the leader.` };
  if (ill.length > 0) {
    const spare = well - (Math.floor(members / 2) + 1);
    const room =
      spare < 0 ? "below a majority" : spare === 0 ? "one more loss stops it" : `it can lose ${spare} more`;
    return {
      level: spare < 0 ? "bad" : "warn",
      word: "Degraded",
      detail: `${well} of ${members} members healthy, ${room}.`,
    };
  }
  return {
    level: "ok",
    word: "Healthy",
    detail: members === 1 ? "A cluster of one member." : `All ${members} members healthy.`,
  };
}

/**
 * How one peer is.
 *
 * @param {any} peer an entry of peer_details
 * @returns {{level: Level, word: string}}
 */
export function health(peer) {
  const latency = peer.latency ?? {};
  const errors = latency.consecutive_errors ?? 0;
  if (latency.reachable === false) return { level: "bad", word: "Unreachable" };
  if (latency.connection_healthy === false) return { level: "bad", word: "Unhealthy" };
  if (latency.reachable === undefined) return { level: "unknown", word: "Unknown" };
  if (errors > 0) return { level: "warn", word: errors === 1 ? "1 error" : `${errors} errors` };
  return { level: "ok", word: "Healthy" };
}
