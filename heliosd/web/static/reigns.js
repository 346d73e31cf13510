/** Who led from when to when, and the event list's lines, out of state changes. Values in, values out. */

import { lasting } from "./format.js";

/** @typedef {import("./model.js").Entry} Entry */
/**
 * @typedef {object} Span a time under one leader, or under none
 * @property {string} leader its id; "" for none
 * @property {string} name
 * @property {number} from Unix milliseconds
 * @property {number | null} to null: it lasts
 * @property {string} cause why the reign ended, or why there was no leader
 * @property {number} term
 * @property {number} silentMs of a time without a leader: for how long the lost one had not answered before
 * @property {boolean} unseen whether the daemon or its own member did not run, so that it is not known who led
 */
/**
 * @typedef {object} Line one line of the event list
 * @property {string} key
 * @property {Entry} entry the newest entry in it
 * @property {Entry | null} loss the first entry of the time without a leader that this line is about
 * @property {boolean} open whether that time lasts
 * @property {string} was name of the leader that was lost; "" where not known
 */
/** @typedef {{ms: number, mostMs: number, times: number, since: number, unseenMs: number}} Absence without a leader: how long as it was seen, and at most, if each lost leader did nothing after its last answer; how often; from when on that is known, and for how long nobody watched since then */

/** When a change was seen, in Unix milliseconds; NaN where it does not say. @param {{timestamp?: string, data?: any}} change */
export function seenAt({ timestamp, data }) {
  return Date.parse(data?.observed_at) || Date.parse(timestamp ?? "");
}

/** @param {{timestamp?: string, data?: any}[]} changes state changes, oldest first @param {Map<string, string>} names by id, where a change has none @returns {Span[]} oldest first */
export function spansOf(changes, names) {
  /** @type {Span[]} */
  const spans = [];
  for (const change of changes) {
    const { leader, leader_name: name, cause, term, member, evidence } = change.data;
    const unseen = change.data.unseen ?? ownMemberDown(change.data);
    const last = spans.at(-1);
    const from = Math.max(seenAt(change), last?.from ?? 0);
    if (Number.isNaN(from) || (last && last.leader === leader && last.unseen === unseen)) continue;
    if (last) {
      last.to = from;
      if (last.leader && (!unseen || last.leader === member)) last.cause = cause ?? "unknown";
    }
    const silent = ["stopped", "unreachable"].includes(cause) && evidence?.last_answer_ms;
    spans.push({ leader, name: name || names.get(leader) || leader, from, to: null, cause: leader || unseen ? "" : (cause ?? "unknown"), term, silentMs: silent || 0, unseen });
  }
  return spans;
}

/** Whether this node's own member has crashed, or has just started and heard of no leader yet: the others may well have one. @param {any} data of a state_change */
export function ownMemberDown({ leader, old_state: old, new_state: state }) {
  return state === "Down" || (old === "Down" && !leader);
}

/**
 * The last leader that was lost, or without one the last that handed over.
 *
 * @param {Span[]} spans
 * @param {number} now
 * @returns {{before: Span, gapMs: number, silentMs: number, planned: number} | null} `planned`: how many handed over since then
 */
export function lastFall(spans, now) {
  const ended = spans.filter((span) => span.leader && span.to !== null && (span.cause || !mayHaveGoneOn(spans, span)));
  const before = ended.findLast(({ cause }) => cause !== "transfer") ?? ended.at(-1);
  if (!before) return null;
  const next = spans[spans.indexOf(before) + 1];
  const gap = next && !next.leader && !next.unseen ? next : null;
  const gapMs = gap ? (gap.to ?? now) - gap.from : 0;
  return { before, gapMs, silentMs: gap?.silentMs ?? 0, planned: ended.length - 1 - ended.indexOf(before) };
}

/** Whether the next that is known after a reign is the same leader in the same term, or nothing. @param {Span[]} spans @param {Span} span */
function mayHaveGoneOn(spans, span) {
  const next = spans.slice(spans.indexOf(span) + 1).find(({ unseen }) => !unseen);
  return !next || (next.leader === span.leader && next.term === span.term);
}

/**
 * Since when it has been as in this span: since before a time that nobody watched, too, if the leader of one term led on
 * both sides of it (Raft: a term has one leader).
 *
 * @param {Span[]} spans
 * @param {Span} span one of them
 * @returns {{since: number, least: boolean}} `least`: it may have begun before
 */
export function began(spans, span) {
  const at = spans.indexOf(span);
  const [watched, between] = [spans[at - 2], spans[at - 1]];
  if (!between?.unseen) return { since: span.from, least: false };
  if (watched?.leader === span.leader && watched.term === span.term) return began(spans, watched);
  return { since: span.from, least: true };
}

/** The time without a leader within a period. @param {Span[]} spans @param {number} from @param {number} to @returns {Absence} */
export function withoutLeader(spans, from, to) {
  let [ms, silentMs, times, unseenMs] = [0, 0, 0, 0];
  const first = spans.find(({ unseen }) => !unseen);
  const since = first ? Math.max(from, first.from) : Infinity;
  for (const span of spans) {
    const [begin, end] = [Math.max(span.from, from), Math.min(span.to ?? to, to)];
    if (end < begin || (span.to !== null && span.to < from) || span.from > to) continue;
    if (span.unseen && span !== spans[0]) unseenMs += end - begin;
    if (span.leader || span.unseen) continue;
    ms += end - begin;
    silentMs += span.silentMs;
    times += 1;
  }
  return { ms, mostMs: ms + silentMs, times, since, unseenMs };
}

/** Whether the silence of lost leaders is a part of it that can be seen. @param {Absence} absence */
export function countsSilence({ ms, mostMs }) {
  return mostMs - ms >= 100;
}

/** How long there was no leader. @param {Absence} absence */
export function absent(absence) {
  if (absence.times === 0) return "none";
  return countsSilence(absence) ? `up to ${lasting(absence.mostMs)}` : lasting(absence.ms);
}

/** For how long it is not known, since this node was down; "" where that is under a second. @param {number} ms */
export function unwatched(ms) {
  return ms >= 1000 ? `, up to ${lasting(ms)} not watched` : "";
}

/** The night that is or was the last one: from 22:00 to 06:00, at most until now. @param {number} now @returns {[number, number]} */
export function lastNight(now) {
  const end = new Date(now);
  end.setHours(6, 0, 0, 0);
  const begin = new Date(end);
  begin.setDate(begin.getDate() - 1);
  begin.setHours(22, 0, 0, 0);
  return [begin.getTime(), Math.min(now, end.getTime())];
}

/**
 * Lines for the list: a loss and the election after it are one.
 *
 * @param {Entry[]} events newest first
 * @param {Map<string, string>} names by id, where an event has none
 * @returns {Line[]} newest first
 */
export function linesOf(events, names) {
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
    } else if (ownMemberDown(entry.data)) {
      lines.add(own);
      open = null;
      was = "";
    } else if (!entry.data.leader) {
      if (open) continue; // a state within the same time without a leader
      open = { key: `${entry.id}-`, entry, loss: entry, open: true, was: was || lostLeader(entry.data, names) };
      lines.add(open);
    } else {
      if (open) lines.delete(open);
      lines.add(open ? { ...open, key: `${open.key}${entry.id}`, entry, open: false } : own);
      open = null;
      was = entry.data.leader_name || names.get(entry.data.leader) || entry.data.leader;
    }
  }
  return [...lines].reverse();
}

/** The name of the leader that this change lost; "" where it does not say. @param {any} data of a state_change @param {Map<string, string>} names */
export function lostLeader({ leader, member, old_state: old, new_state: state }, names) {
  return !leader && old === "Leader" && state !== "Down" ? names.get(member) || member || "" : "";
}
