/** Which moment the page shows: now, or one that has passed. */

/** The daemon's clock may be ahead. */
const AHEAD_MS = 86_400_000;
/** @type {number | null} */
let chosen = null;
/** @type {(() => void)[]} */
const listeners = [];

/** In Unix milliseconds; null: now. */
export function moment() {
  return chosen;
}

/** @param {number | null} at */
export function choose(at) {
  const next = at !== null && Number.isFinite(at) && at < Date.now() + AHEAD_MS ? at : null;
  if (next === chosen) return;
  chosen = next;
  for (const listener of listeners) listener();
}

/** @param {() => void} listener called after each change */
export function whenChosen(listener) {
  listeners.push(listener);
}
