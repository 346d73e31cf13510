/** How long to wait before the next attempt. */

const FIRST_SECONDS = 1;
const LONGEST_SECONDS = 30;

/**
 * Doubles with each failure up to a limit, and lies between half of that and the whole, so that the many pages that
 * lost one daemon do not all come back at one moment.
 *
 * @param {number} failures in a row, from 0
 * @param {number} chance from 0 up to 1
 * @returns {number}
 */
export function delaySeconds(failures, chance) {
  const ceiling = Math.min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** failures);
  return ceiling * (0.5 + chance / 2);
}
