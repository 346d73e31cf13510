/** The list of what happened, newest first: what this page heard, what it read in the history, and notes where something is missing. */

/** @typedef {import("./feed.js").Message} Message */
/**
 * @typedef {object} Entry one line of the event list
 * @property {number} id unique on this page, and larger for what was heard later; below 0 for what was read in the history
 * @property {string} type the message's type, or "note" for a remark of the page itself
 * @property {string} timestamp RFC 3339
 * @property {number} [seq]
 * @property {string} [epoch] which numbering the seq belongs to
 * @property {any} data the message's data; of a note, its text
 * @property {boolean} [provisional] not in the cluster's log yet
 */

/** Of each, so that metrics never bury an election. */
const [EVENTS_KEPT, METRIC_EVENTS_KEPT] = [2000, 50];
const EARLIER_KEPT = 20_000;

export class EventList {
  /** Those that this page heard last, newest first. @type {Entry[]} */
  events = [];
  /** Those before them, newest first; no event between is missing without a note. @type {Entry[]} */
  earlier = [];
  #lastId = 0;
  #lowestId = 0;

  /** The oldest event that is listed. */
  get oldest() {
    const withSeq = (/** @type {Entry} */ { seq }) => seq !== undefined;
    return this.earlier.findLast(withSeq) ?? this.events.findLast(withSeq);
  }

  /** Put what was just heard, or a note, at the top. @param {Omit<Entry, "id">} entry @returns {Entry} as it is listed */
  add(entry) {
    const listed = { id: ++this.#lastId, ...entry };
    this.events.unshift(listed);
    const metric = entry.type === "custom_metrics";
    const like = this.events.filter(({ type }) => (type === "custom_metrics") === metric);
    const last = like.length > (metric ? METRIC_EVENTS_KEPT : EVENTS_KEPT) ? like.at(-1) : null;
    if (last) this.events.splice(this.events.indexOf(last), 1);
    if (last && !metric) this.earlier.unshift(last);
    if (this.earlier.length > EARLIER_KEPT) this.earlier.pop();
    return listed;
  }

  /** Put a note beneath everything. @param {Omit<Entry, "id">} entry @returns {Entry} as it is listed */
  addLast(entry) {
    const listed = { id: --this.#lowestId, ...entry };
    this.earlier.push(listed);
    return listed;
  }

  /** Take away what this event of the log confirms. @param {Message} message */
  confirm(message) {
    this.events = this.events.filter((entry) => !(entry.provisional && isSameChange(entry, message)));
  }

  /**
   * List what was read in the history.
   *
   * @param {Omit<Entry, "id">[]} found newest first
   * @param {Entry | null} note that gives way to them; null: they are older than everything listed
   */
  join(found, note) {
    const heard = note ? this.events.indexOf(note) : -1;
    if (heard !== -1) this.earlier.unshift(...this.events.splice(heard));
    const place = note ? this.earlier.indexOf(note) : this.earlier.length;
    if (place === -1) return; // the note is so old that it is not kept
    this.earlier.splice(place, note ? 1 : 0, ...found.map((entry) => ({ id: --this.#lowestId, ...entry })));
  }
}

/** Whether what was heard before the cluster's log had it is the same as this. @param {{type: string, data?: any}} one @param {{type: string, data?: any}} other */
function isSameChange(one, other) {
  const keys = ["member", "new_state", "leader", "peer_id", "event_type"];
  return one.type === other.type && keys.every((key) => one.data?.[key] === other.data?.[key]);
}
