/** Draws how the connection stands, and the form that asks who you are. */

import { byId, write } from "./dom.js";
import { age, fullTime, timeOfEvent, zone } from "./format.js";

/** @typedef {import("./feed.js").Feed} Feed */
/** @typedef {import("./session.js").Session} Session */

const WORDS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  "signed-out": "Signed out",
  "not-allowed": "Not allowed",
  disconnected: "Disconnected",
};

/**
 * Called every second and at every change.
 *
 * @param {Feed} feed
 * @param {boolean} known whether there is anything of the cluster to show
 */
export function showConnection({ state, heardAt, live }, known) {
  const now = performance.now();
  const waiting = state.name === "reconnecting";
  const seconds = Math.max(0, Math.ceil((state.retryAt - now) / 1000));
  const late = state.name === "live" && !live;
  byId("connection").dataset.state = late ? "late" : state.name;
  // Only the word is announced to screen readers; a countdown read aloud each second would be noise.
  write(byId("connection-text"), late ? "No answer" : WORDS[state.name]);
  const last = heardAt && state.name !== "signed-out" ? age((now - heardAt) / 1000) : "";
  write(byId("heard"), waiting ? `in ${seconds} s` : last);
  byId("reconnect").hidden = !waiting && state.name !== "disconnected";
  const reason = byId("connection-reason");
  const stands =
    state.name === "live" || !known ? "" : ` Below is how things stood ${last === "now" ? "a moment ago" : last}.`;
  reason.hidden = state.name === "live" || !state.reason;
  write(reason, state.reason + stands);
  write(byId("zone"), zone());
  byId("zone").title = `All times here are in this zone. Now: ${fullTime(Date.now())}`;
  byId("dashboard").dataset.fresh = live ? "yes" : "no";
}

/** Put the focus where the reading begins, after a login. */
export function focusDashboard() {
  byId("headline").focus({ preventScroll: true });
}

/** @param {Session} session */
export function showAccount(session) {
  byId("account").hidden = !session.signedIn;
  byId("dashboard").hidden = !session.signedIn;
  byId("login").hidden = session.signedIn;
  byId("loading").hidden = true;
  write(byId("user"), session.user);
  byId("user").title = session.signedIn ? `Signed in until ${timeOfEvent(session.expiresAt)}` : "";
}

/**
 * Ask who is there.
 *
 * @param {string} message why, or ""
 */
export function askLogin(message) {
  const notice = byId("login-message");
  write(notice, message);
  notice.hidden = !message;
  const name = /** @type {HTMLInputElement} */ (byId("login-username"));
  const password = /** @type {HTMLInputElement} */ (byId("login-password"));
  password.value = "";
  (name.value ? password : name).focus();
}
