/** What is shown of the cluster: as it is now, or as it was at a moment that has passed. */

import { membersOf } from "./members.js";
import { membersAt, spanAt } from "./past.js";
import { began } from "./reigns.js";

/** @typedef {import("./members.js").Member} Member */
/**
 * @typedef {object} Scene
 * @property {number} now in Unix milliseconds
 * @property {number | null} at the moment that has passed, in Unix milliseconds; null: now
 * @property {any} status null where nothing was heard yet
 * @property {Member[]} members
 * @property {Member | null} leader
 * @property {number | null} since when it leads, or when nobody does; null: not known
 * @property {boolean} least whether it may have been so before `since`, when nobody watched
 * @property {number | null} term
 * @property {boolean} known whether it is known who led
 */

/** @param {import("./model.js").Model} model @param {number | null} at @returns {Scene} */
export function sceneOf(model, at) {
  const { status, commits, spans } = model;
  const present = membersOf(status, commits);
  if (at === null || !status) {
    const last = spans.at(-1);
    const leader = present.find(({ leads }) => leads) ?? unlisted(status);
    const fits = last && !last.unseen && last.leader === (status?.leader ?? "");
    return { now: model.now, at: null, status, members: present, leader, ...beginOf(spans, fits ? last : null), term: status?.term ?? null, known: status?.state !== "Down" };
  }
  const span = spanAt(spans, at);
  const members = membersAt(present, model.changes, span, at);
  const leader = members.find(({ leads }) => leads) ?? unlisted(span);
  return { now: model.now, at, status, members, leader, ...beginOf(spans, span), term: span?.term ?? null, known: span !== null };
}

/** @param {import("./reigns.js").Span[]} spans @param {import("./reigns.js").Span | null} span one of them */
function beginOf(spans, span) {
  return span ? began(spans, span) : { since: null, least: false };
}

/** A leader that is no member any more. @param {any} known @returns {Member | null} */
function unlisted(known) {
  if (!known?.leader) return null;
  const name = known.name || known.leader;
  return { id: known.leader, name, own: false, state: "Leader", voter: true, answers: true, leads: true, peer: {}, lag: null };
}
