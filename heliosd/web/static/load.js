/** Starts the page. It imports nothing, so that it can say that a part of the page did not come, and try again. */

const AGAIN_MS = 1000;
const MOST_TIMES = 5;
const KEY = "heliosd-loads-failed";

/** How often the page has loaded again in a row. @param {number | null} times to keep; null: only read it @returns {number} */
function loads(times) {
  try {
    if (times !== null) sessionStorage.setItem(KEY, String(times));
    return Number(sessionStorage.getItem(KEY));
  } catch {
    return MOST_TIMES; // without storage it cannot be counted
  }
}

/** @param {unknown} failure */
async function loadAgain(failure) {
  const notice = /** @type {HTMLElement} */ (document.getElementById("loading"));
  if (notice.hidden) throw failure; // it had loaded
  console.warn("the page did not load whole:", failure);
  const times = loads(null);
  const says = "A part of this page did not come.";
  notice.textContent = times < MOST_TIMES ? `${says} It loads again by itself.` : `${says} Load it again.`;
  while (times < MOST_TIMES) {
    await new Promise((wake) => setTimeout(wake, AGAIN_MS * 2 ** times));
    const answer = await fetch("healthz", { cache: "no-store" }).catch(() => null);
    if (!answer?.ok) continue;
    loads(times + 1);
    location.reload();
    return;
  }
}

await import("./app.js").then(() => loads(0), loadAgain);
