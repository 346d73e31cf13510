/** The members as one list, and what one more loss would do. Values in, values and words out. */

import { health } from "./cluster_health.js";

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
 * @property {number | null} lag entries behind the last one that is known to be committed; null where not known
 */

/** This node first, then the others by name. @param {any} status data of a status message, or null @returns {Member[]} */
export function membersOf(status) {
  if (!status) return [];
  const own = status.node ?? { id: status.node_id };
  const watches = status.state === "Observer"; // no member of the cluster
  const peers = (status.peer_details ?? []).map((/** @type {any} */ peer) => ({
    id: peer.id,
    name: peer.name || peer.id,
    own: false,
    state: peer.state ?? "Unknown",
    voter: peer.voter ?? peer.state !== "Learner",
    answers: health(peer).level !== "bad" && peer.latency?.reachable !== false && peer.state !== "Down",
    leads: peer.id === status.leader,
    peer,
    lag: peer.match_index > 0 ? Math.max(0, status.commit_index - peer.match_index) : null, // 0: nothing confirmed to this leader yet
  }));
  peers.sort((/** @type {Member} */ one, /** @type {Member} */ other) =>
    one.name.localeCompare(other.name, "en", { numeric: true }),
  );
  if (watches) return peers;
  const self = {
    id: status.node_id,
    name: own.name || status.node_id,
    own: true,
    state: status.state,
    voter: status.state !== "Learner",
    answers: !["Down", "Unknown"].includes(status.state),
    leads: status.leader === status.node_id,
    peer: own,
    lag: Math.max(0, status.commit_index - status.last_applied),
  };
  return [self, ...peers];
}

/**
 * What the loss of one more voter would do, as one sentence; "" where there are no members to count.
 *
 * @param {Member[]} members
 */
export function oneMoreLoss(members) {
  const voters = members.filter(({ voter }) => voter);
  if (voters.length === 0) return "";
  const alive = voters.filter(({ answers }) => answers).length;
  const spare = alive - (Math.floor(voters.length / 2) + 1);
  const verb = alive === 1 ? "answers" : "answer";
  const count = `${alive} of ${voters.length} ${voters.length === 1 ? "voter" : "voters"} ${verb}`;
  if (spare < 0) return `${count}: no quorum, so no writes are possible.`;
  if (spare === 0) return `${count}: one more loss and no writes are possible.`;
  return `${count}: ${spare} more ${spare === 1 ? "loss leaves" : "losses leave"} a quorum.`;
}

/** Whether values rise or fall, in words: the newer half's mean against the older half's. @param {number[]} values oldest first */
export function trendText(values) {
  if (values.length < 4) return "";
  const middle = Math.floor(values.length / 2);
  const mean = (/** @type {number[]} */ part) => part.reduce((sum, one) => sum + one, 0) / part.length;
  const [before, after] = [mean(values.slice(0, middle)), mean(values.slice(middle))];
  if (after > before * 1.2) return "rising";
  return after < before * 0.8 ? "falling" : "steady";
}
