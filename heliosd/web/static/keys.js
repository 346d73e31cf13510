/** The page's keys: one table, which binds them and from which the list of them is made. */

import { byId, make } from "./dom.js";
import { choose, moment, whenChosen } from "./moment.js";
import { step } from "./reigns_view.js";

/** @typedef {{key: string, says: string, run: () => void}} Key */

/** @param {string} id */
function go(id) {
  history.replaceState(history.state, "", `#${id}`); // its state says that there is a session
  const target = byId(`${id}-panel`);
  target.scrollIntoView({ block: "start" });
  target.focus({ preventScroll: true });
}

/** @type {Key[]} */
const KEYS = [
  { key: "m", says: "go to the members", run: () => go("members") },
  { key: "l", says: "go to the leaders", run: () => go("reigns") },
  { key: "e", says: "go to the events", run: () => go("events") },
  { key: "t", says: "go to the latencies", run: () => go("latency") },
  { key: "c", says: "go to the custom metrics", run: () => go("metrics") },
  { key: "p", says: "pause the events, or go on", run: () => byId("events-pause").click() },
  { key: "[", says: "show the cluster before the last change, and the one before it", run: () => step(-1) },
  { key: "]", says: "show the cluster after the next change", run: () => step(1) },
  { key: "n", says: "show the cluster as it is now", run: () => choose(null) },
  { key: "?", says: "show the keys", run: showKeys },
];
/** The address follows the chosen moment when it has stood still for so long. */
const SETTLED_MS = 300;
const PANELS = new Set(["members", "reigns", "latency", "events", "metrics"]);

function dialog() {
  return /** @type {HTMLDialogElement} */ (byId("keys-dialog"));
}

function showKeys() {
  byId("keys").replaceChildren(
    ...KEYS.flatMap(({ key, says }) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, says)]),
  );
  dialog().showModal();
}

/** Bind the keys, which do nothing while nobody is signed in or something is typed. */
export function bindKeys() {
  addEventListener("keydown", (event) => {
    const target = /** @type {Element} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || byId("dashboard").hidden) return;
    if (target.closest("input, select, textarea, dialog[open]")) return;
    const bound = KEYS.find(({ key }) => key === event.key);
    if (!bound) return;
    event.preventDefault();
    bound.run();
  });
  byId("keys-open").addEventListener("click", showKeys);
  byId("keys-close").addEventListener("click", () => dialog().close());
}

/** Go where the address says: `#events`, one event `#event-17`, or a moment `#at=2026-11-28T03:12:00Z`. */
export function followHash() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (PANELS.has(id)) go(id);
  else if (id.startsWith("at=")) choose(Date.parse(id.slice(3)));
  else if (/^event-\d+$/.test(id)) document.getElementById(id)?.scrollIntoView({ block: "center" });
}

/** Keep the chosen moment in the address, so that it can be sent to somebody. */
export function keepMoment() {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let soon;
  whenChosen(() => {
    clearTimeout(soon); // browsers refuse an address that changes with every movement of the hand
    soon = setTimeout(() => {
      const at = moment();
      const hash = at === null ? location.pathname + location.search : `#at=${new Date(at).toISOString()}`;
      if (at !== null || location.hash.startsWith("#at=")) history.replaceState(history.state, "", hash);
    }, SETTLED_MS);
  });
}
