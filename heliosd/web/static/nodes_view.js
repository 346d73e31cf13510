/** Leads to the dashboards of the other heliosd that observe the same etcd cluster. */

import { byId, make } from "./dom.js";

/** @typedef {import("./session.js").Session} Session */

let drawn = "";

/** Let the choice act. */
export function bindNodes() {
  const list = /** @type {HTMLSelectElement} */ (byId("nodes"));
  list.addEventListener("change", () => {
    const url = list.value;
    if (/^https?:/.test(url)) location.assign(url + location.hash);
  });
}

/** Ask who observes, where that can be others. @param {Session} session @param {any} status */
export async function learnNodes(session, status) {
  if (status?.node === undefined || !session.may("cluster:read")) return show([], "");
  const { observers = [] } = await session.request("GET", "api/cluster/status").catch(() => ({}));
  show(observers, status.observed_by);
}

/** @param {any[]} observers @param {string} own */
function show(observers, own) {
  const key = JSON.stringify([observers, own]);
  if (key === drawn) return;
  drawn = key;
  byId("nodes").hidden = observers.length < 2;
  const options = observers.map(({ id, url }) => {
    const known = /^https?:/.test(url ?? "");
    const option = make("option", { value: known ? url : "" }, id === own ? `${id} (here)` : id);
    if (id === own) option.setAttribute("selected", "");
    else if (!known) option.setAttribute("disabled", "");
    return option;
  });
  byId("nodes").replaceChildren(...options);
}
