/** Who led from when to when, and the event list's lines, out of state changes. Values in, values out. */

/** @typedef {import("./model.js").Entry} Entry */
/**
 * @typedef {object} Span a time under one leader, or under none
 * @property {string} leader its id; "" for none
 * @property {string} name
 * @property {number} from Unix milliseconds
 * @property {number | null} to null: it lasts
 * @property {string} cause why the reign ended, or why there was no leader
 * @property {number} term
 */
/**
 * @typedef {object} Line one line of the event list
 * @property {string} key
 * @property {Entry} entry the newest entry in it
 * @property {Entry | null} loss the first entry of the time without a leader that this line is about
 * @property {boolean} open whether that time lasts
 * @property {string} was name of the leader that was lost; "" where not known
 */

/** When a state change was seen, in Unix milliseconds. @param {{timestamp?: string, data?: any}} change */
export function seenAt({ timestamp, data }) {
  return Date.parse(data?.observed_at ?? timestamp ?? "");
}

/** @param {{timestamp?: string, data?: any}[]} changes state changes, oldest first @returns {Span[]} oldest first */
export function spansOf(changes) {
  /** @type {Span[]} */
  const spans = [];
  for (const change of changes) {
    const { leader, leader_name: name, cause, term } = change.data;
    const last = spans.at(-1);
    if (last && last.leader === leader) continue;
    const from = seenAt(change);
    if (last) {
      last.to = Math.max(last.from, from);
      if (last.leader) last.cause = cause ?? "unknown";
    }
    spans.push({ leader, name: name || leader, from, to: null, cause: leader ? "" : (cause ?? "unknown"), term });
  }
  return spans;
}

/**
 * Lines for the list: a loss and the election after it are one.
 *
 * @param {Entry[]} events newest first
 * @returns {Line[]} newest first
 */
export function linesOf(events) {
  /** @type {Set<Line>} */
  const lines = new Set();
  /** @type {Line | null} */
  let open = null;
  let was = "";
  for (const entry of events.toReversed()) {
    const own = { key: String(entry.id), entry, loss: null, open: false, was: "" };
    if (entry.type === "note") {
      open = null; // the election may be among what is missing
      was = "";
    }
    if (entry.type !== "state_change" || entry.provisional) {
      lines.add(own);
    } else if (!entry.data.leader) {
      if (open) continue; // a state within the same time without a leader
      open = { key: `${entry.id}-`, entry, loss: entry, open: true, was };
      lines.add(open);
    } else {
      if (open) lines.delete(open);
      lines.add(open ? { ...open, key: `${open.key}${entry.id}`, entry, open: false } : own);
      open = null;
      was = entry.data.leader_name || entry.data.leader;
    }
  }
  return [...lines].reverse();
}
