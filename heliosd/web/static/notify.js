/** Notifications of the browser about the leader, if a person turns them on and the browser allows them. */

import { byId, write } from "./dom.js";

/** The leader of the last notification; undefined: nothing was heard yet. @type {string | null | undefined} */
let known;

/** Offer them where the browser has them: it does not on a page without TLS, but for localhost. */
export function bindNotify() {
  const button = byId("notify");
  button.hidden = !("Notification" in globalThis) || !isSecureContext || Notification.permission === "denied";
  show();
  button.addEventListener("click", async () => {
    if (Notification.permission === "granted") wanted = !wanted;
    else wanted = (await Notification.requestPermission()) === "granted";
    show();
    button.hidden = Notification.permission === "denied";
  });
}

let wanted = false;

function show() {
  byId("notify").setAttribute("aria-pressed", String(wanted));
  write(byId("notify"), wanted ? "Notifying" : "Notify");
}

/** Notify of a leader that was lost or elected. @param {string | null | undefined} leader its id, "" for none, null where this node cannot see it @param {string} name */
export function noteLeader(leader, name) {
  const news = known !== undefined && known !== leader && wanted;
  known = leader;
  if (!news) return;
  const title = leader ? `${name} leads` : leader === null ? "Who leads is not known" : "No leader";
  try {
    new Notification(title, { body: location.host, tag: "heliosd-leader", icon: "static/icon.svg" });
  } catch {
    wanted = false; // some browsers allow them and let only a service worker make one
    show();
    byId("notify").hidden = true;
  }
}

/** Nothing of an earlier session is left. */
export function forgetLeader() {
  known = undefined;
}
