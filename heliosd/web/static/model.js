/** What the page knows of the cluster, from the messages it has heard. Touches neither page nor network. */

import { CommitTimes } from "./lag.js";
import { spansOf } from "./reigns.js";
import { Series, seriesOf } from "./series.js";

/** @typedef {import("./feed.js").Message} Message */
/**
 * @typedef {object} Metric
 * @property {string} [type]
 * @property {string} [help]
 * @property {Record<string, string>} [labels]
 * @property {number} [value]
 * @property {number} [count]
 * @property {number} [sum]
 * @property {number[]} [buckets]
 * @property {number[]} [bucket_counts]
 * @property {string} [created_at]
 */
/**
 * @typedef {object} Entry one line of the event list
 * @property {number} id unique on this page, later ones larger
 * @property {string} type the message's type, or "note" for a remark of the page itself
 * @property {string} timestamp RFC 3339
 * @property {number} [seq]
 * @property {string} [epoch] which numbering the seq belongs to
 * @property {any} data the message's data; of a note, its text
 * @property {boolean} [provisional] not in the cluster's log yet
 */

/** Of each, so that metrics never bury an election. */
export const [EVENTS_KEPT, METRIC_EVENTS_KEPT] = [2000, 50];
const CHANGES_KEPT = 4000;
export const LATENCY_MS = 15 * 60_000;
const [VALUES_MS, VALUES_APART_MS, LATENCY_APART_MS] = [60_000, 1000, 2000];

/** Clocks that differ by less are taken for one; a message may have been underway for so long. */
const SAME_CLOCK_MS = 2000;

const EVENT_TYPES = new Set(["state_change", "peer_change", "snapshot"]);
const CHANGE_TYPES = new Set(["state_change", "peer_change"]);

export class Model {
  /** The data of the last status or status_update; null before the first. @type {any} */
  status = null;
  /** @type {Map<string, Metric>} */
  metrics = new Map();
  /** Those that this page heard, newest first. @type {Entry[]} */
  events = [];
  /** Those of before, newest first; without a hole to the ones it heard. @type {Entry[]} */
  earlier = [];
  /** State and peer changes, oldest first. @type {Message[]} */
  changes = [];
  /** State changes that the cluster's log does not have yet, since the last one that it has. @type {Message[]} */
  #early = [];
  /** The last known name of each member, by its id. @type {Map<string, string>} */
  names = new Map();
  /** Grows with `changes`, and with what else `spans` are made of. */
  version = 0;
  /** By peer id, over 15 minutes; a break in the connection is a hole in them. @type {Map<string, Series>} */
  latencies = new Map();
  /** The data of the last `latency`. @type {any} */
  latency = null;
  /** Over a minute, by metric name. @type {Map<string, Series>} */
  values = new Map();
  /** What members measured to each other. @type {Record<string, Record<string, any>>} */
  matrix = {};
  commits = new CommitTimes();
  /** Whether messages come. */
  live = false;
  /** How far the daemon's clock is ahead of this machine's, in milliseconds. */
  #ahead = 0;
  #heardAt = 0;
  /** The seq of the newest event that is known of; null before any. @type {number | null} */
  seq = null;
  /** The oldest event that can be had, by the last welcome. */
  oldestSeq = 1;
  /** Which numbering these seqs belong to. */
  epoch = "";
  #lastId = 0;
  /** @type {{version: number, spans: import("./reigns.js").Span[]}} */
  #spans = { version: -1, spans: [] };

  /** The time by the daemon's clock, in Unix milliseconds; while no messages come, that of the last one. */
  get now() {
    return (this.live || !this.#heardAt ? Date.now() : this.#heardAt) + this.#ahead;
  }

  /** Who led when, oldest first. */
  get spans() {
    if (this.#spans.version !== this.version) {
      const states = this.changes.filter(({ type }) => type === "state_change");
      this.#spans = { version: this.version, spans: spansOf([...states, ...this.#early], this.names) };
    }
    return this.#spans.spans;
  }

  /**
   * The oldest event that is listed, or would be the next one. If that one is of a numbering that has ended, the oldest
   * that can be had: what came before the listed ones cannot.
   */
  get oldestListed() {
    const oldest = this.earlier.at(-1) ?? this.events.findLast(({ seq }) => seq !== undefined);
    if (oldest && oldest.epoch !== this.epoch) return this.oldestSeq;
    return oldest?.seq ?? (this.seq ?? 0) + 1;
  }

  /**
   * Where to go on, as the query of the next connection.
   *
   * @returns {Record<string, string>}
   */
  get cursor() {
    return this.seq === null ? { after: "now" } : { epoch: this.epoch, after: String(this.seq) };
  }

  /** @param {Message} message */
  take(message) {
    const data = message.data ?? {};
    this.#heardAt = Date.now();
    if (message.type === "welcome") {
      this.#begin(data, message.timestamp);
    } else if (message.type === "gap") {
      this.#miss(data.from_seq, data.to_seq, message.timestamp, ": it was too slow");
      this.seq = data.to_seq;
    } else if (message.type === "status") {
      this.#expect(data.as_of_seq, 0, message.timestamp);
      this.metrics = new Map();
      this.#mergeMetrics(data.custom_metrics ?? {}, message.timestamp);
      for (const name of this.values.keys()) if (!this.metrics.has(name)) this.values.delete(name);
      this.#standing(data);
      this.#checkLeader(data);
    } else if (message.type === "latency") {
      this.latency = data;
    } else if (message.type === "status_update") {
      this.#standing(data);
    } else if (message.type === "custom_metrics") {
      this.#mergeMetrics(data, message.timestamp);
      // The values among these messages carry no seq; a registration or a deletion does.
      if (message.seq !== undefined) this.#event(message);
    } else if (EVENT_TYPES.has(message.type)) {
      this.#event(message);
    }
  }

  /**
   * Events of before those that are listed.
   *
   * @param {Message[]} found in their order, without a hole to the listed ones
   * @param {string} epoch that they were asked for
   */
  recall(found, epoch) {
    if (epoch !== this.epoch) return; // it ended while they were underway
    const oldest = this.oldestListed;
    const before = found.filter(({ seq }) => seq !== undefined && seq < oldest);
    for (const { type, timestamp, seq = 0, data } of before.toReversed())
      this.earlier.push({ id: seq - Number.MAX_SAFE_INTEGER, type, timestamp: timestamp ?? "", seq, epoch, data });
    this.rememberBefore(before.filter(({ type }) => CHANGE_TYPES.has(type)));
  }

  /** Changes of before those that are known. @param {Message[]} found in their order */
  rememberBefore(found) {
    this.changes = [...found, ...this.changes].slice(-CHANGES_KEPT);
    this.version += 1;
  }

  /** Times in which nobody saw who led, put between the changes. @param {Message[]} found in their order */
  rememberUnseen(found) {
    const at = (/** @type {Message} */ message) => Date.parse(message.timestamp ?? "");
    this.changes = [...this.changes, ...found].sort((one, other) => at(one) - at(other)).slice(-CHANGES_KEPT);
    this.version += 1;
  }

  /** @param {any} data */
  #standing(data) {
    this.status = data;
    const at = Date.parse(data.observed_at);
    const ahead = at - Date.now();
    this.#ahead = Math.abs(ahead) > SAME_CLOCK_MS ? ahead : 0;
    this.commits.add(at, data.commit_index);
    const peers = data.peer_details ?? [];
    for (const { id, name } of [...peers, data.node ?? {}]) this.#learnName(id, name);
    for (const { id, latency = {} } of peers) {
      const fresh = latency.sample_count > 0 && latency.reachable;
      if (!fresh) continue; // an old value must not look like a new one
      seriesOf(this.latencies, id, () => new Series(LATENCY_MS, LATENCY_APART_MS)).add(at, latency.avg_latency_ms);
    }
    const present = new Set(peers.map((/** @type {any} */ peer) => peer.id));
    for (const id of this.latencies.keys()) if (!present.has(id)) this.latencies.delete(id);
  }

  /** @param {string | undefined} id @param {string | undefined} name */
  #learnName(id, name) {
    if (!id || !name || this.names.get(id) === name) return;
    this.names.set(id, name);
    this.version += 1;
  }

  /** After a gap the leader may be another one, without an event that was heard. @param {any} status */
  #checkLeader({ leader, term, observed_at: timestamp }) {
    const last = this.changes.findLast(({ type }) => type === "state_change");
    if (!last || last.data.leader === leader) return;
    this.#change({ type: "state_change", timestamp, data: { leader, term, cause: "unknown" } });
  }

  /** @param {Record<string, Metric | null>} changed @param {string} [timestamp] */
  #mergeMetrics(changed, timestamp) {
    const at = Date.parse(timestamp ?? "");
    for (const [name, metric] of Object.entries(changed)) {
      if (metric === null) {
        this.metrics.delete(name);
        this.values.delete(name);
      } else if (typeof metric === "object") {
        this.metrics.set(name, metric);
        seriesOf(this.values, name, () => new Series(VALUES_MS, VALUES_APART_MS)).add(at, metric.value);
      }
    }
  }

  /** @param {Message} message */
  #event(message) {
    this.#expect(message.seq, 1, message.timestamp);
    const isState = message.type === "state_change";
    if (isState) this.#early = message.provisional ? [...this.#early, message] : [];
    if (isState) this.version += 1;
    if (!message.provisional) this.events = this.events.filter((entry) => !(entry.provisional && isSameChange(entry, message)));
    this.#list(message.type, message.timestamp, message.data, message.seq, message.provisional);
    if (CHANGE_TYPES.has(message.type) && !message.provisional) this.#change(message);
  }

  /** @param {Message} message */
  #change(message) {
    this.changes.push(message);
    if (this.changes.length > CHANGES_KEPT) this.changes.shift();
    this.version += 1;
  }

  /**
   * A connection begins, or the daemon's numbering does. What cannot be sent again shows itself in the status
   * that follows, whose seq lies further on.
   *
   * @param {any} data of the welcome
   * @param {string} [timestamp]
   */
  #begin({ epoch, seq, oldest_seq: oldest, recovered }, timestamp) {
    this.oldestSeq = oldest;
    if (!recovered && (epoch !== this.epoch || seq < (this.seq ?? 0))) {
      this.#list("note", timestamp, "The daemon began a new order of events: some may be missing here.");
      this.seq = seq;
    }
    this.epoch = epoch;
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
    this.events.unshift({ id: ++this.#lastId, type, timestamp: timestamp ?? "", seq, epoch: this.epoch, data, provisional });
    const metric = type === "custom_metrics";
    const like = this.events.filter((entry) => (entry.type === "custom_metrics") === metric);
    const last = like.length > (metric ? METRIC_EVENTS_KEPT : EVENTS_KEPT) ? like.at(-1) : null;
    if (!last) return;
    this.events.splice(this.events.indexOf(last), 1);
    if (!metric) this.earlier = []; // there would be a hole before them
  }
}

/** Whether what was heard before the cluster's log had it is the same as this. @param {{type: string, data?: any}} one @param {{type: string, data?: any}} other */
function isSameChange(one, other) {
  const keys = ["member", "new_state", "leader", "peer_id", "event_type"];
  return one.type === other.type && keys.every((key) => one.data?.[key] === other.data?.[key]);
}
