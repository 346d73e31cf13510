/** The page: joins the session, the feed and the model to what is drawn. */

import { bindActs, forgetActs, showActs } from "./acts_view.js";
import { showCluster } from "./cluster_view.js";
import { askLogin, showAccount, showConnection } from "./connection_view.js";
import { byId } from "./dom.js";
import { bindEvents, showEvents } from "./events_view.js";
import { Feed } from "./feed.js";
import { bindKeys, followHash } from "./keys.js";
import { showMembers } from "./members_view.js";
import { showMetrics } from "./metrics_view.js";
import { Model } from "./model.js";
import { showReigns } from "./reigns_view.js";
import { Refused, Session, Unreachable } from "./session.js";

const DRAW_MILLISECONDS = 100;

const session = new Session();
let model = new Model();
let drawing = false;

const feed = new Feed(
  session,
  () => model.cursor,
  (message) => {
    const first = model.seq === null;
    model.take(message);
    if (message.type === "authenticated") showAccount(session);
    if (message.type === "welcome" && first) recall(message.data);
    if (message.type === "welcome") session.learnPermissions().then(drawSoon);
    drawSoon();
  },
  ({ name, reason }) => {
    if (name === "signed-out" || name === "not-allowed") leave(reason);
    drawConnection();
  },
);

/** List what happened before the page was opened. @param {any} welcome */
async function recall({ epoch, seq, oldest_seq }) {
  const asked = model;
  const earlier = await session.eventsBefore(epoch, seq, oldest_seq);
  if (asked !== model) return; // signed out meanwhile
  model.recall(earlier);
  setTimeout(followHash, 2 * DRAW_MILLISECONDS); // the panels have their size then
  drawSoon();
}

/** Draw a burst of messages once. A timer, since a hidden tab gets no animation frames but still has a title to keep. */
function drawSoon() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => {
    drawing = false;
    draw();
  }, DRAW_MILLISECONDS);
}

function draw() {
  showCluster(model);
  showMembers(model);
  showMetrics(model);
  showEvents(model);
  showReigns(model);
  showActs(model, session);
  drawConnection();
}

function drawConnection() {
  showConnection(feed, model.status !== null);
  document.title = title();
}

/** What a narrow browser tab shows. */
function title() {
  if (!session.signedIn) return "heliosd";
  if (feed.state.name !== "live" || !model.status) return `… ${feed.state.name} · heliosd`;
  return `${model.status.leader ? `${model.status.leader} leads` : "NO LEADER"} · heliosd`;
}

/**
 * Be signed out on this page, with nothing of the cluster left to read.
 *
 * @param {string} reason
 */
function leave(reason) {
  session.forget();
  model = new Model();
  forgetActs();
  draw();
  showAccount(session);
  askLogin(reason);
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
  const submit = /** @type {HTMLButtonElement} */ (byId("login-submit"));
  submit.disabled = true;
  try {
    await session.login(String(form.get("username")), String(form.get("password")));
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    askLogin(error.message);
    return;
  } finally {
    submit.disabled = false;
  }
  askLogin("");
  showAccount(session);
  feed.connect();
});

byId("logout").addEventListener("click", async () => {
  const { expiresAt } = session;
  const revoked = session.logout();
  feed.disconnect("");
  if (!(await revoked) && !session.signedIn) {
    const until = new Date(expiresAt).toLocaleString();
    askLogin(`You are signed out here, but the daemon could not be reached: your token lives until ${until}.`);
  }
});

byId("reconnect").addEventListener("click", () => feed.connect());
byId("metrics-filter").addEventListener("input", drawSoon);
byId("reigns-period").addEventListener("change", drawSoon);
bindEvents(drawSoon);
bindActs();
bindKeys();
addEventListener("hashchange", () => {
  session.keep();
  followHash();
});

setInterval(drawConnection, 1000);
showAccount(session);
askLogin("");
if (await session.restore()) {
  showAccount(session);
  feed.connect();
}
