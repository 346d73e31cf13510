/** Which moment the page shows: now, or one that has passed. */

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
  const next = at !== null && Number.isFinite(at) && at < Date.now() ? at : null;
  if (next === chosen) return;
  chosen = next;
  for (const listener of listeners) listener();
}

/** @param {() => void} listener called after each change */
export function whenChosen(listener) {
  listeners.push(listener);
}
