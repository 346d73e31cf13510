/** The changes of leaders and members that the page knows of, from what it heard, what it read, and when it did not look. */

import { ownMemberDown, spansOf } from "./reigns.js";

/** @typedef {import("./feed.js").Message} Message */

const KEPT = 4000;
const TYPES = new Set(["state_change", "peer_change"]);

export class ChangeLog {
  /** Oldest first. @type {Message[]} */
  all = [];
  /** Those of them that only the record has shown. @type {Set<Message>} */
  #remembered = new Set();
  /** State changes that the cluster's log does not have yet, since the last one that it has. @type {Message[]} */
  #early = [];
  /** Who led when, oldest first; null until it is asked for anew. @type {import("./reigns.js").Span[] | null} */
  #spans = null;

  /** @param {Map<string, string>} names by id */
  spans(names) {
    const states = this.all.filter(({ type }) => type === "state_change");
    this.#spans ??= spansOf([...states, ...this.#early], names);
    return this.#spans;
  }

  /** Something that the spans are made of is different now. */
  changed() {
    this.all.splice(0, this.all.length - KEPT);
    this.#spans = null;
  }

  /** @param {Message} event that was heard */
  hear(event) {
    if (event.type === "state_change") this.#early = event.provisional ? [...this.#early, event] : [];
    if (TYPES.has(event.type) && !event.provisional) this.all.push(event);
    this.changed();
  }

  /**
   * Events are missing: from that moment on it is not known who led, until `lookAgain` says it.
   *
   * @param {number} since Unix milliseconds
   * @param {number} term
   * @returns {Message} what stands for them
   */
  miss(since, term) {
    const gone = unseen(since, term);
    this.#early = []; // the log's own may be among them
    this.all.push(gone);
    this.changed();
    return gone;
  }

  /**
   * The leader may be another one, or the same one again, without an event that was heard.
   *
   * @param {any} status
   */
  lookAgain({ leader, term, state, observed_at: timestamp }) {
    const last = this.#last;
    const down = state === "Down";
    if (!last || (last.data.leader === leader && (last.data.unseen ?? ownMemberDown(last.data)) === down)) return;
    this.all.push({ type: "state_change", timestamp, data: { leader, term, cause: "unknown", unseen: down } });
    this.changed();
  }

  /**
   * Put in what was read in the history.
   *
   * @param {Message[]} found in their order
   * @param {Message | null} gone what `miss` gave for them; null: they are older than all others
   * @param {boolean} whole whether nothing is missing any more
   */
  fill(found, gone, whole) {
    const changes = found.filter(({ type }) => TYPES.has(type));
    if (!gone) return this.#putBefore(changes);
    const place = this.all.indexOf(gone);
    if (place === -1) return; // so old that it is not kept
    this.all.splice(whole ? place : place + 1, whole ? 1 : 0, ...changes);
    this.changed();
  }

  /** Older ones than were heard. The record may have the same: only what it has of before them stays. @param {Message[]} changes */
  #putBefore(changes) {
    const first = changes.find(({ type }) => type === "state_change");
    const from = first ? timeOf(first) : Infinity;
    const older = this.all.filter((one) => (this.#remembered.has(one) || one.data.unseen) && timeOf(one) < from);
    const rest = this.all.filter((one) => !this.#remembered.has(one) && !older.includes(one));
    this.all = [...older, ...changes, ...rest];
    this.changed();
  }

  /** Changes of before those that are known. @param {Message[]} found in their order */
  rememberBefore(found) {
    const oldest = this.all.find(({ type }) => type === "state_change");
    const known = oldest ? timeOf(oldest) : Infinity;
    const before = found.filter((change) => timeOf(change) < known);
    this.all = [...before, ...this.all];
    this.#remembered = new Set(before);
    this.changed();
  }

  /**
   * Times in which nobody saw who led, put between the changes. One that is known already is not put there again.
   *
   * @param {Message[]} found in their order
   * @param {any} status the last one
   */
  rememberUnseen(found, status) {
    const known = new Set(this.all.filter(({ data }) => data.unseen).map(({ timestamp }) => timestamp));
    const news = found.filter(({ timestamp }) => !known.has(timestamp));
    if (news.length === 0) return;
    this.all = [...this.all, ...news].sort((one, other) => timeOf(one) - timeOf(other));
    this.changed();
    if (status && this.#last?.data.unseen) this.lookAgain(status);
  }

  get #last() {
    return this.all.findLast(({ type }) => type === "state_change");
  }
}

/** From when on it is not known who leads. @param {number} since Unix milliseconds @param {number} term @returns {Message} */
export function unseen(since, term) {
  const data = { leader: "", term, cause: "unknown", unseen: true };
  return { type: "state_change", timestamp: new Date(since).toISOString(), data };
}

/** By its timestamp, in Unix milliseconds. @param {Message} message */
function timeOf({ timestamp }) {
  return Date.parse(timestamp ?? "");
}
