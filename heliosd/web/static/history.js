/** Asks the daemon for what happened before this page heard anything. What cannot be had is left out. */

/** @typedef {import("./session.js").Session} Session */
/** @typedef {import("./feed.js").Message} Message */

const [PAGES, PAGE_EVENTS] = [20, 1000];
/** Metrics are asked for apart, so that they never bury an election. */
const [CHANGES, METRICS, METRICS_AT_MOST] = ["state_changes,peer_changes,snapshot", "custom_metrics", 50];
const MARKS = 1000;

/**
 * State and peer changes and snapshots among the 20,000 events before one, and the last registrations of metrics.
 *
 * @param {Session} session
 * @param {string} epoch
 * @param {number} seq of the newest event that is wanted
 * @param {number} oldest seq that is kept
 * @returns {Promise<Message[]>} in their order
 */
export async function eventsUpTo(session, epoch, seq, oldest) {
  const changes = await pages(session, epoch, Math.max(oldest - 1, seq - PAGES * PAGE_EVENTS), seq, CHANGES, PAGES);
  const metrics = await pages(session, epoch, Math.max(oldest - 1, seq - PAGE_EVENTS), seq, METRICS, 1);
  return [...changes, ...metrics.slice(-METRICS_AT_MOST)].sort((one, other) => Number(one.seq) - Number(other.seq));
}

/**
 * Everything from after one event up to another, as far as it fits into so many pages.
 *
 * @param {Session} session @param {string} epoch @param {number} after @param {number} upTo @param {string} types @param {number} atMost pages
 */
async function pages(session, epoch, after, upTo, types, atMost) {
  /** @type {Message[]} */
  const found = [];
  for (let page = 0; page < atMost && after < upTo; page++) {
    const query = new URLSearchParams({ epoch, after: String(Math.max(0, after)), types, limit: String(PAGE_EVENTS) });
    const { events = [], more = false } = await session.request("GET", `api/cluster/history?${query}`).catch(() => ({}));
    found.push(...events);
    if (!more || events.length === 0) break;
    after = events.at(-1).seq;
  }
  return found.filter(({ seq = 0 }) => seq <= upTo);
}

/**
 * What this node's own record knows of leaders: it reaches back further than the events. Between a stop and the next
 * start nobody looked.
 *
 * @param {Session} session
 * @returns {Promise<{changes: Message[], unseen: Message[]}>} in their order
 */
export async function leadersOnRecord(session) {
  const { recent_events: newest = [] } = await session
    .request("GET", `api/cluster/uptime/history?events=${MARKS}&sessions=1`)
    .catch(() => ({}));
  /** @type {{changes: Message[], unseen: Message[]}} */
  const found = { changes: [], unseen: [] };
  for (const { type, timestamp, term, leader_id: leader = "" } of newest.toReversed()) {
    const unseen = ["start", "stop", "crash"].includes(type);
    const data = { leader: unseen ? "" : leader, term, cause: "unknown", unseen };
    if (type !== "reset") found[unseen ? "unseen" : "changes"].push({ type: "state_change", timestamp, data });
  }
  return found;
}
