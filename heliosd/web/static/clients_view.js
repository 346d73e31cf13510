/** Draws the connected clients, with a button to disconnect each, while their list is open. */

import { byId, foreign, make, rows, timed, write } from "./dom.js";
import { integer, timeOfEvent } from "./format.js";

/** @typedef {import("./session.js").Session} Session */

const REFRESH_MS = 5000;

/** @param {Session} session @param {(id: string, name: string) => void} disconnect asks first */
export function bindClients(session, disconnect) {
  const list = /** @type {HTMLDetailsElement} */ (byId("clients-list"));
  const refresh = async () => {
    if (!list.open || !session.signedIn || document.hidden) return;
    const { clients = [] } = await session.request("GET", "api/cluster/clients").catch(() => ({}));
    show(clients, disconnect);
  };
  list.addEventListener("toggle", refresh);
  setInterval(refresh, REFRESH_MS);
}

/** @param {any[]} clients @param {(id: string, name: string) => void} disconnect */
function show(clients, disconnect) {
  const body = /** @type {HTMLElement} */ (byId("clients").querySelector("tbody"));
  rows(
    body,
    clients.map((client) => [client.id, client]),
    (_key, { id, user, address, transport, since }) => {
      const button = make("button", { type: "button", class: "small", "aria-label": `Disconnect ${user}, ${address}` }, "Disconnect…");
      button.addEventListener("click", () => disconnect(id, `${user}, ${address}`));
      const time = make("td");
      timed(time, timeOfEvent(since), since);
      return make(
        "tr",
        { "data-client": id },
        make("th", { scope: "row" }, foreign(user), make("span", { class: "under" }, foreign(`${address}, ${transport}`))),
        time,
        make("td", { class: "number" }),
        make("td", { class: "number" }),
        make("td", { class: "number" }, button),
      );
    },
    (row, { queue, dropped }) => {
      write(row.children[2], integer(queue));
      write(row.children[3], integer(dropped));
    },
  );
}
