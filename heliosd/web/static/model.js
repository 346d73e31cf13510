/** What the page knows of the cluster, from the messages it has heard. Touches neither page nor network. */

import { ChangeLog, unseen } from "./change_log.js";
import { EventList } from "./event_list.js";
import { CommitTimes } from "./lag.js";
import { seenAt } from "./reigns.js";
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
/** @typedef {import("./event_list.js").Entry} Entry */
/**
 * @typedef {object} Hole events that this page did not hear, and for which the history can be asked
 * @property {"before" | "between" | "renumbered"} place before all that is listed; between events that were heard; or in a new
 *   numbering, so that it is not known which of them were heard in the former one
 * @property {string} epoch
 * @property {number} after the first of them is the next one
 * @property {number} upTo the last of them
 * @property {number} since when nobody knows who led, in Unix milliseconds
 * @property {Entry | null} note what the list says of them
 * @property {Message | null} gone what the changes say of them
 */

export const LATENCY_MS = 15 * 60_000;
const [VALUES_MS, VALUES_APART_MS, LATENCY_APART_MS] = [60_000, 1000, 2000];

/** Clocks that differ by less are taken for one; a message may have been underway for so long. */
const SAME_CLOCK_MS = 2000;

const EVENT_TYPES = new Set(["state_change", "peer_change", "snapshot"]);
/** Until such a message it is known who led: it says so, or that nothing else has happened. */
const TELL_WHO_LEADS = new Set(["status", "status_update", ...EVENT_TYPES]);

export class Model {
  /** The data of the last status or status_update; null before the first. @type {any} */
  status = null;
  /** @type {Map<string, Metric>} */
  metrics = new Map();
  #list = new EventList();
  /** What the history can still be asked for. @type {Hole[]} */
  holes = [];
  #log = new ChangeLog();
  /** The last known name of each member, by its id. @type {Map<string, string>} */
  names = new Map();
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
  /** Up to when it is known who led, in Unix milliseconds by the cluster's clocks. */
  #seenUpTo = 0;
  /** The same, as it was when the last connection but one ended; 0 where that is settled. */
  #awaySince = 0;
  /** How far the daemon's clock is ahead of this machine's, in milliseconds. */
  #ahead = 0;
  #heardAt = 0;
  /** The seq of the newest event that is known of; null before any. @type {number | null} */
  seq = null;
  /** The oldest event that can be had, by the last welcome. */
  oldestSeq = 1;
  /** Which numbering these seqs belong to. */
  epoch = "";

  /** The time by the daemon's clock, in Unix milliseconds; while no messages come, that of the last one. */
  get now() {
    return (this.live || !this.#heardAt ? Date.now() : this.#heardAt) + this.#ahead;
  }

  /** How long ago the last message came, whatever the daemon's clock says. */
  get silentMs() {
    return Math.max(0, Date.now() - this.#heardAt);
  }

  /** Who led when, oldest first. */
  get spans() {
    return this.#log.spans(this.names);
  }

  /** State and peer changes, oldest first. */
  get changes() {
    return this.#log.all;
  }

  /** Those that this page heard, newest first. */
  get events() {
    return this.#list.events;
  }

  /** Those before them, newest first. */
  get earlier() {
    return this.#list.earlier;
  }

  /**
   * The oldest event that is listed, or would be the next one. If that one is of a numbering that has ended, the oldest
   * that can be had: what came before the listed ones cannot.
   */
  get oldestListed() {
    const { oldest } = this.#list;
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
      this.#missBetween(data.from_seq, data.to_seq, message.timestamp, ": it was too slow");
      this.seq = data.to_seq;
    } else if (message.type === "status") {
      this.#expect(data.as_of_seq, 0, message.timestamp);
      this.metrics = new Map();
      this.#mergeMetrics(data.custom_metrics ?? {}, message.timestamp);
      for (const name of this.values.keys()) if (!this.metrics.has(name)) this.values.delete(name);
      this.#standing(data);
      this.#log.lookAgain(data);
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
    if (TELL_WHO_LEADS.has(message.type)) this.#seenUpTo = seenAt(message) || this.#seenUpTo;
  }

  /** Ask the history for what comes before the listed events as well. */
  wantEarlier() {
    if (!this.holes.some(({ place }) => place === "before")) this.#wantBefore(this.oldestListed - 1);
  }

  /**
   * Take in what the history has of a hole.
   *
   * @param {Hole} hole one of `holes`
   * @param {Message[]} found in their order
   * @param {number} after everything that is kept from there on has been found, up to the hole's end
   * @param {number} oldest seq that is kept
   */
  fill(hole, found, after, oldest) {
    if (!this.close(hole)) return; // its numbering ended while they were underway
    this.oldestSeq = oldest;
    const { place, epoch, note, gone } = hole;
    if (place === "before" && this.earlier.length && this.oldestListed > hole.upTo + 1) return; // the oldest listed are not kept any more
    const whole = place === "before" || (place === "between" && after <= hole.after);
    const missing = place === "renumbered" ? found.filter((message) => seenAt(message) > hole.since) : found;
    const entries = missing.map(({ type, timestamp = "", seq, data }) => ({ type, timestamp, seq, epoch, data }));
    const left = whole || !note ? [] : [place === "between" ? { ...this.#note(unheard(hole.after + 1, after)), timestamp: note.timestamp } : note];
    this.#list.join([...entries.toReversed(), ...left], note);
    this.#log.fill(missing, gone, whole);
  }

  /** The history did not answer for a hole; it can be asked again. @param {Hole} hole */
  leaveOpen(hole) {
    if (this.holes.includes(hole))
      hole.note ??= this.#list.addLast(this.#note("What happened before could not be read.", new Date(this.now).toISOString()));
  }

  /** The history will not be asked for it any more. @param {Hole} hole @returns {boolean} whether it would have been */
  close(hole) {
    const open = this.holes.includes(hole);
    this.holes = this.holes.filter((other) => other !== hole);
    return open;
  }

  /**
   * What this node's own record knows of leaders, and of times in which it did not look.
   *
   * @param {{changes: Message[], unseen: Message[]}} record in their order
   */
  rememberRecord({ changes, unseen }) {
    this.#log.rememberBefore(changes);
    this.#log.rememberUnseen(unseen, this.status);
    this.#awaySince = 0;
  }

  /** The record cannot be had: then nobody may have looked while this page was away. */
  doubtAbsence() {
    if (this.#awaySince) this.#log.rememberUnseen([unseen(this.#awaySince, this.status?.term)], this.status);
    this.#awaySince = 0;
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
    this.#log.changed();
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
    if (!message.provisional) this.#list.confirm(message);
    const { type, timestamp = "", seq, data, provisional } = message;
    this.#list.add({ type, timestamp, seq, epoch: this.epoch, data, provisional });
    this.#log.hear(message);
  }

  /**
   * A connection begins, or the daemon's numbering does. What is missing of the same numbering shows itself in the status
   * that follows, whose seq lies further on.
   *
   * @param {any} data of the welcome
   * @param {string} [timestamp]
   */
  #begin({ epoch, seq, oldest_seq: oldest, recovered }, timestamp) {
    const first = this.seq === null;
    const renumbered = !first && !recovered && (epoch !== this.epoch || seq < (this.seq ?? 0));
    this.epoch = epoch;
    this.oldestSeq = oldest;
    this.#awaySince = this.#seenUpTo;
    if (!first && !renumbered) return;
    this.seq = seq;
    this.holes = [];
    if (renumbered && this.#list.oldest) {
      this.#miss("renumbered", oldest - 1, seq, timestamp, "The daemon began a new order of events: some may be missing here.");
    } else {
      this.#log = new ChangeLog(); // it had nothing but the record, which is asked for again
      this.#wantBefore(seq);
    }
  }

  /** @param {number} upTo */
  #wantBefore(upTo) {
    this.holes.push({ place: "before", epoch: this.epoch, after: 0, upTo, since: 0, note: null, gone: null });
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
    if (this.seq !== null && seq > this.seq + step) this.#missBetween(this.seq + 1, seq - step, timestamp);
    this.seq = seq;
  }

  /**
   * @param {number} first
   * @param {number} last
   * @param {string | undefined} timestamp
   * @param {string} why
   */
  #missBetween(first, last, timestamp, why = "") {
    this.#miss("between", first - 1, last, timestamp, unheard(first, last, why));
  }

  /**
   * Events were not heard: say so, and claim nothing of who led until a status says it.
   *
   * @param {"between" | "renumbered"} place
   * @param {number} after
   * @param {number} upTo
   * @param {string | undefined} timestamp
   * @param {string} text of the note
   */
  #miss(place, after, upTo, timestamp, text) {
    const note = this.#list.add(this.#note(text, timestamp));
    const since = this.#seenUpTo;
    const gone = since ? this.#log.miss(since, this.status?.term) : null;
    this.holes.push({ place, epoch: this.epoch, after, upTo, since, note, gone });
  }

  /** @param {string} text @param {string} [timestamp] */
  #note(text, timestamp = "") {
    return { type: "note", timestamp, epoch: this.epoch, data: text };
  }
}

/** @param {number} first @param {number} last @param {string} why */
function unheard(first, last, why = "") {
  const which = first === last ? `Event #${first} was` : `Events #${first} to #${last} were`;
  return `${which} not heard by this page${why}.`;
}
