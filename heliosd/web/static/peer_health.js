/** How one peer is. Values in, words out. */

/** @typedef {"ok" | "warn" | "bad" | "unknown"} Level */

/** @type {{level: Level, word: string}} */
export const NOT_KNOWN = { level: "unknown", word: "Not known" };

/**
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
