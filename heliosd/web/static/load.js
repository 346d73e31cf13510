/** Starts the page. It imports nothing, so that it can say that a part of the page did not come, and try again. */

const AGAIN_MS = 1000;
const MOST_TIMES = 5;
const KEY = "heliosd-loads-failed";

/** How often the page has loaded again in a row. @returns {number} */
function timesLoaded() {
  try {
    return Number(sessionStorage.getItem(KEY));
  } catch {
    return MOST_TIMES; // without storage it cannot be counted
  }
}

/** Nothing is left in the storage where the page has loaded. */
function forgetTimes() {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // there is no storage
  }
}

/** @param {unknown} failure */
async function loadAgain(failure) {
  const notice = /** @type {HTMLElement} */ (document.getElementById("loading"));
  if (notice.hidden) throw failure; // it had loaded
  console.warn("the page did not load whole:", failure);
  const times = timesLoaded();
  const says = "A part of this page did not come.";
  notice.textContent = times < MOST_TIMES ? `${says} It loads again by itself.` : `${says} Load it again.`;
  while (times < MOST_TIMES) {
    await new Promise((wake) => setTimeout(wake, AGAIN_MS * 2 ** times));
    const answer = await fetch("healthz", { cache: "no-store" }).catch(() => null);
    if (!answer?.ok) continue;
    sessionStorage.setItem(KEY, String(times + 1));
    location.reload();
    return;
  }
}

await import("./app.js").then(forgetTimes, loadAgain);
