/** Shows which faults a simulated cluster has, and heals them. */

import { byId, write } from "./dom.js";

/** @typedef {import("./session.js").Session} Session */

const PATH = "api/cluster/simulation";
/** So long after an answer that shows faults the next question follows, since no event says that a fault has ended. */
const AGAIN_MS = 1000;
let asking = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let again;
let signedIn = 0; // counts the sessions, so that an answer to an earlier one is not shown

/** Ask again, where there is a simulated cluster. @param {Session} session @param {any} status */
export async function learnFaults(session, status) {
  if (asking || !status || status.node !== undefined || !session.may("cluster:read")) return;
  asking = true;
  clearTimeout(again);
  const asked = signedIn;
  const faults = await session.request("GET", PATH).catch(() => null);
  asking = false;
  if (asked !== signedIn) return;
  if (faults) show(faults);
  if (!byId("faults").hidden) askLater(session, status);
}

/** @param {Session} session @param {any} status */
function askLater(session, status) {
  again = setTimeout(() => (document.hidden ? askLater : learnFaults)(session, status), AGAIN_MS);
}

/** @param {any} faults */
function show({ partitions, crashed, paused = [], loss, latency_ms: delay, disk_latency_ms: disk = {}, clock_rate: rate = {}, clock_offset_ms: leap = {} }) {
  const named = (/** @type {string} */ word, /** @type {string[]} */ ids) => (ids.length ? [`${word} ${ids.join(", ")}`] : []);
  const says = [
    ...named("crashed:", crashed),
    ...named("paused:", paused),
    ...(partitions.length ? [`parted: ${partitions.map((/** @type {string[]} */ group) => group.join(", ")).join(" | ")}`] : []),
    ...(loss ? [`${+(loss * 100).toFixed(1)} % of messages lost`] : []),
    ...(delay > 10 ? [`${delay} ms delay`] : []),
    ...named("slow disk:", Object.keys(disk)),
    ...named("wrong clock:", [...new Set([...Object.keys(rate), ...Object.keys(leap)])]),
  ];
  byId("faults").hidden = says.length === 0;
  write(byId("faults-text"), `Simulated faults: ${says.join("; ")}.`);
}

/** Nothing of an earlier session is left. */
export function forgetFaults() {
  clearTimeout(again);
  signedIn += 1;
  byId("faults").hidden = true;
  write(byId("faults-text"), "");
}
