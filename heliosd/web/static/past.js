/** The cluster at a moment that has passed, out of its changes since. Values in, values out. */

import { seenAt } from "./reigns.js";

/** @typedef {import("./members.js").Member} Member */
/** @typedef {import("./reigns.js").Span} Span */
/** @typedef {import("./feed.js").Message} Message */

/** Who led then. @param {Span[]} spans @param {number} at @returns {Span | null} null: not known */
export function spanAt(spans, at) {
  const span = spans.findLast(({ from }) => from <= at);
  return span && !span.unseen ? span : null;
}

/**
 * The members as they were: those of now, with every change since then undone. What was not kept, such as lags, is null.
 *
 * @param {Member[]} members of now
 * @param {Message[]} changes state and peer changes, oldest first
 * @param {Span | null} span who led then
 * @param {number} at Unix milliseconds
 * @returns {Member[]}
 */
export function membersAt(members, changes, span, at) {
  const then = new Map(members.map((member) => [member.id, { ...member, lag: null, peer: { address: member.peer.address } }]));
  for (const change of changes.toReversed()) {
    if (seenAt(change) <= at) break;
    if (change.type === "peer_change") undo(then, change.data);
  }
  const found = [...then.values()];
  for (const member of found) {
    member.leads = span?.leader === member.id;
    if (member.own) ownState(member, changes, at);
    else member.state = member.leads ? "Leader" : member.answers ? (member.voter ? "Follower" : "Learner") : "Unknown";
  }
  return found;
}

/** @param {Map<string, Member>} members @param {any} change data of a peer_change */
function undo(members, { event_type: kind, peer_id: id, peer_name: name, peer_address: address }) {
  const member = members.get(id);
  if (kind === "added") members.delete(id);
  else if (kind === "removed")
    members.set(id, { id, name: name || id, own: false, state: "", voter: true, answers: true, leads: false, peer: { address }, lag: null });
  else if (!member) return;
  else if (kind === "healthy") member.answers = false;
  else if (kind === "unhealthy") member.answers = true;
  else if (kind === "promoted") member.voter = false;
}

/** This node's state by its own changes. @param {Member} member @param {Message[]} changes @param {number} at */
function ownState(member, changes, at) {
  const own = changes.filter(({ type, data }) => type === "state_change" && data.member === member.id);
  const last = own.findLast((change) => seenAt(change) <= at);
  member.state = last ? last.data.new_state : (own[0]?.data.old_state ?? member.state);
  if (member.leads) member.state = "Leader";
  member.answers = !["Down", "Unknown"].includes(member.state);
}
