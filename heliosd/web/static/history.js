/** Asks the daemon for what this page did not hear. */

/** @typedef {import("./session.js").Session} Session */
/** @typedef {import("./feed.js").Message} Message */

const [PAGES, PAGE_EVENTS] = [20, 1000];
/** Metrics are asked for apart, so that they never bury an election. */
const [CHANGES, METRICS, METRICS_AT_MOST] = ["state_changes,peer_changes,snapshot", "custom_metrics", 50];
const MARKS = 1000;

/** The history's answers do not reach as far as was asked. */
export class Incomplete extends Error {}

/**
 * State and peer changes and snapshots among the last 20,000 events of a stretch, and the last registrations of metrics.
 *
 * @param {Session} session
 * @param {{epoch: string, after: number, upTo: number}} stretch
 * @returns {Promise<{found: Message[], after: number, oldest: number}>} in their order; from after which one on that is all,
 *   since the older ones are not kept or too many; and the oldest seq that is kept
 * @throws {import("./session.js").Refused | import("./session.js").Unreachable | Incomplete}
 */
export async function eventsOf(session, { epoch, after, upTo }) {
  const { epoch: current, oldest_seq: oldest } = await session.request("GET", "api/cluster/history?limit=1");
  if (current !== epoch) throw new Incomplete("That numbering has ended.");
  const from = Math.max(after, oldest - 1, upTo - PAGES * PAGE_EVENTS);
  const changes = await pages(session, epoch, from, upTo, CHANGES);
  const metrics = await pages(session, epoch, Math.max(from, upTo - PAGE_EVENTS), upTo, METRICS);
  const found = [...changes, ...metrics.slice(-METRICS_AT_MOST)].sort((one, other) => Number(one.seq) - Number(other.seq));
  return { found, after: from, oldest };
}

/**
 * Everything from after one event up to another.
 *
 * @param {Session} session @param {string} epoch @param {number} after @param {number} upTo @param {string} types
 */
async function pages(session, epoch, after, upTo, types) {
  /** @type {Message[]} */
  const found = [];
  while (after < upTo) {
    const query = new URLSearchParams({ epoch, after: String(after), types, limit: String(PAGE_EVENTS) });
    const { events, more, seq } = await session.request("GET", `api/cluster/history?${query}`);
    found.push(...events);
    after = more ? events.at(-1).seq : seq;
    if (!more && seq < upTo) throw new Incomplete("This node has not heard of the newest events.");
  }
  return found.filter(({ seq = 0 }) => seq <= upTo);
}

/**
 * What this node's own record knows of leaders: it reaches back further than the events. Between a stop and the next
 * start nobody looked.
 *
 * @param {Session} session
 * @returns {Promise<{changes: Message[], unseen: Message[]}>} in their order
 * @throws {import("./session.js").Refused | import("./session.js").Unreachable}
 */
export async function leadersOnRecord(session) {
  const { recent_events: newest = [] } = await session.request("GET", `api/cluster/uptime/history?events=${MARKS}&sessions=1`);
  /** @type {{changes: Message[], unseen: Message[]}} */
  const found = { changes: [], unseen: [] };
  for (const { type, timestamp, term, leader_id: leader = "" } of newest.toReversed()) {
    const unseen = ["start", "stop", "crash"].includes(type);
    const data = { leader: unseen ? "" : leader, term, cause: "unknown", unseen };
    if (type !== "reset") found[unseen ? "unseen" : "changes"].push({ type: "state_change", timestamp, data });
  }
  return found;
}
