/** How far a member is behind, in entries and in time. */

import { Series } from "./series.js";

/**
 * @typedef {object} Lag
 * @property {number} entries behind the last one that is known to be committed
 * @property {number} ms since when, at least, it has been behind: an entry that it lacks was committed so long ago
 */

const [KEPT_MS, APART_MS] = [3_600_000, 1000];
/** As long as this it may have been underway. */
export const LATE_MS = 2000;

/** When the cluster was seen to have committed how much. */
export class CommitTimes {
  #seen = new Series(KEPT_MS, APART_MS);

  /** @param {number} at Unix milliseconds @param {unknown} commit */
  add(at, commit) {
    if (this.#seen.values.at(-1) !== commit) this.#seen.add(at, commit);
  }

  /** @param {number} applied the last entry that a member has @param {number} goal the last committed one @param {number} now @returns {Lag} */
  lag(applied, goal, now) {
    const first = this.#seen.values.findIndex((commit) => commit > applied);
    const since = first === -1 ? now : this.#seen.times[first];
    return { entries: Math.max(0, goal - applied), ms: goal > applied ? Math.max(0, now - since) : 0 };
  }
}

/** Whether a member is so far behind that somebody should know. @param {Lag | null} lag */
export function isLate(lag) {
  return lag !== null && lag.entries > 0 && lag.ms >= LATE_MS;
}
