/** Starts the page. It imports nothing, so that it can say that a part of the page did not come, and try again. */

const AGAIN_MS = 1000;
const MOST_TIMES = 5;
const KEY = "heliosd-loads-failed";

try {
  await import("./app.js");
  sessionStorage.removeItem(KEY);
} catch (failure) {
  console.warn("the page did not load whole:", failure);
  const times = Number(sessionStorage.getItem(KEY)) + 1;
  sessionStorage.setItem(KEY, String(times));
  const notice = /** @type {HTMLElement} */ (document.getElementById("loading"));
  notice.textContent = "A part of this page did not come. Load it again.";
  while (times <= MOST_TIMES) {
    await new Promise((wake) => setTimeout(wake, AGAIN_MS * 2 ** (times - 1)));
    const answer = await fetch("healthz", { cache: "no-store" }).catch(() => null);
    if (!answer?.ok) continue;
    location.reload();
    break;
  }
}
