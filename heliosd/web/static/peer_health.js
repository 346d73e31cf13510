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
  // Of that there are events, so it does not get old; of a single call without an answer there are none.
  if (latency.connection_healthy === false) return { level: "bad", word: "Unreachable" };
  if (errors > 0) return { level: "warn", word: errors === 1 ? "1 error" : `${errors} errors` };
  // Nobody has called it yet, or nothing of the kind is known.
  if (!latency.reachable) return { level: "unknown", word: "Unknown" };
  return { level: "ok", word: "Healthy" };
}
