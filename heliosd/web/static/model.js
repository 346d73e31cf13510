/** What the page knows of the cluster, from the messages it has heard. Touches neither page nor network. */

/** @typedef {import("./feed.js").Message} Message */
/**
 * @typedef {object} Metric
 * @property {string} [type]
 * @property {string} [help]
 * @property {Record<string, string>} [labels]
 * @property {number} [value]
 * @property {number} [count]
 * @property {number} [sum]
 * @property {string} [created_at]
 */
/**
 * @typedef {object} Entry one line of the event list
 * @property {number} id unique on this page, later ones larger
 * @property {string} type the message's type, or "note" for a remark of the page itself
 * @property {string} timestamp RFC 3339
 * @property {number} [seq]
 * @property {any} data the message's data; of a note, its text
 * @property {boolean} [provisional] not in the cluster's log yet
 */

export const EVENTS_KEPT = 200;
/** Apart from the others, so that they never bury an election. */
export const METRIC_EVENTS_KEPT = 50;
const CHANGES_KEPT = 2000;
const SAMPLES_KEPT = 60;

const EVENT_TYPES = new Set(["state_change", "peer_change", "snapshot"]);

/** The last values of something, oldest first. */
class Trace {
  /** @type {number[]} */
  values = [];

  /** @param {unknown} value */
  add(value) {
    if (typeof value !== "number" || !Number.isFinite(value)) return;
    this.values.push(value);
    if (this.values.length > SAMPLES_KEPT) this.values.shift();
  }
}

/**
 * The trace under a name, made if missing.
 *
 * @param {Map<string, Trace>} traces
 * @param {string} name
 */
function trace(traces, name) {
  let found = traces.get(name);
  if (!found) traces.set(name, (found = new Trace()));
  return found;
}

export class Model {
  /** The data of the last status or status_update; null before the first. @type {any} */
  status = null;
  /** @type {Map<string, Metric>} */
  metrics = new Map();
  /** Newest first. @type {Entry[]} */
  events = [];
  /** State changes, oldest first; more of them than in `events`. @type {Message[]} */
  changes = [];
  /** Average latencies by peer id. @type {Map<string, Trace>} */
  latencies = new Map();
  /** Values by metric name. @type {Map<string, Trace>} */
  values = new Map();
  /** The seq of the newest event that is known of; null before any. @type {number | null} */
  seq = null;
  /** Which numbering that seq belongs to. */
  #epoch = "";
  #lastId = 0;

  /**
   * Where to go on, as the query of the next connection.
   *
   * @returns {Record<string, string>}
   */
  get cursor() {
    return this.seq === null ? { after: "now" } : { epoch: this.#epoch, after: String(this.seq) };
  }

  /** @param {Message} message */
  take(message) {
    const data = message.data ?? {};
    if (message.type === "welcome") {
      this.#begin(data, message.timestamp);
    } else if (message.type === "gap") {
      this.#miss(data.from_seq, data.to_seq, message.timestamp, ": it was too slow");
      this.seq = data.to_seq;
    } else if (message.type === "status") {
      this.#expect(data.as_of_seq, 0, message.timestamp);
      this.metrics = new Map();
      this.#mergeMetrics(data.custom_metrics ?? {});
      for (const name of this.values.keys()) if (!this.metrics.has(name)) this.values.delete(name);
      this.#standing(data);
    } else if (message.type === "status_update") {
      this.#standing(data);
    } else if (message.type === "custom_metrics") {
      this.#mergeMetrics(data);
      // The values among these messages carry no seq; a registration or a deletion does.
      if (message.seq !== undefined) this.#event(message);
    } else if (EVENT_TYPES.has(message.type)) {
      this.#event(message);
    }
  }

  /**
   * Events of before this page listened, below those that it heard.
   *
   * @param {Message[]} earlier in their order
   */
  recall(earlier) {
    const oldest = Math.min(...this.events.map(({ seq }) => seq ?? Infinity), (this.seq ?? 0) + 1);
    const before = earlier.filter(({ seq }) => seq !== undefined && seq < oldest);
    this.changes = [...before.filter(({ type }) => type === "state_change"), ...this.changes].slice(-CHANGES_KEPT);
    let room = EVENTS_KEPT - this.events.filter(({ type }) => type !== "custom_metrics").length;
    for (const { type, timestamp, seq = 0, data } of before.toReversed()) {
      if (room-- <= 0) return;
      this.events.push({ id: seq - Number.MAX_SAFE_INTEGER, type, timestamp: timestamp ?? "", seq, data });
    }
  }

  /** @param {any} data */
  #standing(data) {
    this.status = data;
    const peers = data.peer_details ?? [];
    for (const peer of peers) trace(this.latencies, peer.id).add(peer.latency?.avg_latency_ms);
    const present = new Set(peers.map((/** @type {any} */ peer) => peer.id));
    for (const id of this.latencies.keys()) if (!present.has(id)) this.latencies.delete(id);
  }

  /** @param {Record<string, Metric | null>} changed */
  #mergeMetrics(changed) {
    for (const [name, metric] of Object.entries(changed)) {
      if (metric === null) {
        this.metrics.delete(name);
        this.values.delete(name);
      } else if (typeof metric === "object") {
        this.metrics.set(name, metric);
        trace(this.values, name).add(metric.value);
      }
    }
  }

  /** @param {Message} message */
  #event(message) {
    this.#expect(message.seq, 1, message.timestamp);
    this.#list(message.type, message.timestamp, message.data, message.seq, message.provisional);
    if (message.type !== "state_change" || message.provisional) return;
    this.changes.push(message);
    if (this.changes.length > CHANGES_KEPT) this.changes.shift();
  }

  /**
   * A connection begins, or the daemon's numbering does. What cannot be sent again shows itself in the status
   * that follows, whose seq lies further on.
   *
   * @param {any} data of the welcome
   * @param {string} [timestamp]
   */
  #begin({ epoch, seq, recovered }, timestamp) {
    if (!recovered && (epoch !== this.#epoch || seq < (this.seq ?? 0))) {
      this.#list("note", timestamp, "The daemon began a new order of events: some may be missing here.");
      this.seq = seq;
    }
    this.#epoch = epoch;
    this.seq ??= seq;
  }

  /**
   * Hold a seq against the last one: a hole is said, never passed over.
   *
   * @param {number | undefined} seq as sent
   * @param {number} step by how much it should lie beyond the last one
   * @param {string} [timestamp]
   */
  #expect(seq, step, timestamp) {
    if (typeof seq !== "number") return;
    if (this.seq !== null && seq > this.seq + step)
      this.#miss(this.seq + 1, seq - step, timestamp);
    this.seq = seq;
  }

  /**
   * @param {number} first
   * @param {number} last
   * @param {string | undefined} timestamp
   * @param {string} why
   */
  #miss(first, last, timestamp, why = "") {
    const which = first === last ? `Event #${first} was` : `Events #${first} to #${last} were`;
    this.#list("note", timestamp, `${which} not heard by this page${why}.`);
  }

  /**
   * @param {string} type
   * @param {string | undefined} timestamp
   * @param {any} data
   * @param {number} [seq]
   * @param {boolean} [provisional]
   */
  #list(type, timestamp, data, seq, provisional) {
    this.events.unshift({ id: ++this.#lastId, type, timestamp: timestamp ?? "", seq, data, provisional });
    const metric = (/** @type {Entry} */ entry) => entry.type === "custom_metrics";
    const like = this.events.filter((entry) => metric(entry) === (type === "custom_metrics"));
    const last = like.length > (type === "custom_metrics" ? METRIC_EVENTS_KEPT : EVENTS_KEPT) ? like.at(-1) : null;
    if (last) this.events.splice(this.events.indexOf(last), 1);
  }
}
