/** The members as one list, and what the loss of one would do. Values in, values and words out. */

import { health } from "./peer_health.js";

/** @typedef {import("./lag.js").Lag} Lag */
/** @typedef {import("./lag.js").CommitTimes} CommitTimes */
/** @typedef {import("./peer_health.js").Level} Level */
/**
 * @typedef {object} Member
 * @property {string} id
 * @property {string} name the id where a member has no name of its own
 * @property {boolean} own whether it is the node that this page talks to
 * @property {string} state
 * @property {boolean} voter
 * @property {boolean} answers
 * @property {boolean} leads
 * @property {any} peer the entry of peer_details; of this node, what its status says of it
 * @property {Lag | null} lag null where not known
 */

/** This node first, then the others by name. @param {any} status data of a status message, or null @param {CommitTimes} commits @returns {Member[]} */
export function membersOf(status, commits) {
  if (!status) return [];
  const own = status.node ?? { id: status.node_id };
  const blind = status.state === "Down"; // what it says of the others is old, or nothing at all
  const details = status.peer_details ?? [];
  const now = Date.parse(status.observed_at);
  const goal = Math.max(status.commit_index ?? 0, ...details.map(appliedBy));
  const lagOf = (/** @type {number} */ applied) => (applied > 0 ? commits.lag(applied, goal, now) : null);
  const peers = details.map((/** @type {any} */ peer) => ({
    id: peer.id,
    name: peer.name || peer.id,
    own: false,
    state: blind ? "Not known" : (peer.state ?? "Unknown"),
    voter: peer.voter ?? peer.state !== "Learner",
    answers: health(peer).level !== "bad" && peer.state !== "Down",
    leads: peer.id === status.leader,
    peer,
    lag: blind ? null : lagOf(appliedBy(peer)),
  }));
  peers.sort((/** @type {Member} */ one, /** @type {Member} */ other) =>
    one.name.localeCompare(other.name, "en", { numeric: true }),
  );
  if (status.state === "Observer") return peers; // this node is no member of the cluster
  const self = {
    id: status.node_id,
    name: own.name || status.node_id,
    own: true,
    state: status.state,
    voter: own.voter ?? status.state !== "Learner",
    answers: !["Down", "Unknown"].includes(status.state),
    leads: status.leader === status.node_id,
    peer: own,
    lag: lagOf(status.last_applied ?? 0),
  };
  return [self, ...peers];
}

/** The last entry that a peer is known to have; 0 where nothing is known. @param {any} peer @returns {number} */
function appliedBy({ applied_index: applied, match_index: match }) {
  return applied ?? match ?? 0;
}

/** @param {Member[]} members */
function votes(members) {
  const voters = members.filter(({ voter }) => voter);
  const quorum = Math.floor(voters.length / 2) + 1;
  return { all: voters.length, alive: voters.filter(({ answers }) => answers).length, quorum };
}

/** Whether as many voters answer as writes need. @param {Member[]} members */
export function hasQuorum(members) {
  const { alive, quorum } = votes(members);
  return alive >= quorum;
}

/**
 * What the loss of one more voter would do, as one sentence; "" where there are no members to count.
 *
 * @param {Member[]} members
 */
export function oneMoreLoss(members) {
  const { all, alive, quorum } = votes(members);
  if (all === 0) return "";
  const spare = alive - quorum;
  const silent = members.filter(({ voter, answers }) => voter && !answers).map(({ name }) => name);
  const more = silent.length ? " more" : "";
  const not = silent.length > 0 && silent.length <= 3 ? `, not ${silent.join(", ")}` : "";
  const count = `${alive} of ${all} ${all === 1 ? "voter" : "voters"} ${alive === 1 ? "answers" : "answer"}${not}`;
  if (spare < 0) return `${count}: no quorum, so no writes are possible.`;
  if (spare === 0) return silent.length ? `${count}: one more loss stops writes.` : `${count}: the loss of one stops writes.`;
  return `${count}: writes survive the loss of ${spare === 1 ? "one" : spare}${more}.`;
}

/** Whether this node's own member is down: then what it said of the others gets old. @param {Member[]} members */
export function ownIsDown(members) {
  return members.some(({ own, state }) => own && state === "Down");
}

/**
 * What happens if this member is stopped now, for a reboot say.
 *
 * @param {Member[]} members
 * @param {Member} member one of them
 * @returns {{level: Level, short: string, long: string}}
 */
export function ifStopped(members, member) {
  const { all, alive, quorum } = votes(members);
  const name = member.name;
  if (!member.voter)
    return { level: "ok", short: "Writes go on", long: `${name} has no vote: without it writes go on.` };
  if (ownIsDown(members))
    return { level: "unknown", short: "Not known", long: "This node is down: what the others do is not seen from here." };
  const left = alive - (member.answers ? 1 : 0);
  const count = `${left} of ${all} voters answer, ${quorum} are needed`;
  if (!member.answers) {
    const now = left >= quorum ? "writes go on" : "writes stand still";
    const level = left >= quorum ? "unknown" : "bad"; // not "ok": this member is missing
    return { level, short: `Silent already, ${now}`, long: `${name} does not answer already, and ${now} without it: ${count}.` };
  }
  if (alive < quorum)
    return { level: "bad", short: "Writes stand still", long: `Writes stand still already: ${alive} of ${all} voters answer, ${quorum} are needed.` };
  if (left < quorum)
    return { level: "bad", short: "Writes stop", long: `Without ${name} writes stop until it is back: ${count}.` };
  const spare = left === quorum ? " Another loss meanwhile stops them." : "";
  if (member.leads)
    return { level: "warn", short: "New leader, writes go on", long: `Without ${name} another member is elected, then writes go on: ${count}.${spare}` };
  return { level: "ok", short: "Writes go on", long: `Without ${name} writes go on: ${count}.${spare}` };
}
