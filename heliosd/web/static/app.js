/** The page: joins the session, the feed and the model to what is drawn. */

import { askFor, bindActs, forgetActs, showActs } from "./acts_view.js";
import { bindClients } from "./clients_view.js";
import { giveColours } from "./colours.js";
import { askLogin, focusDashboard, showAccount, showConnection } from "./connection_view.js";
import { byId } from "./dom.js";
import { bindEvents, showEvents } from "./events_view.js";
import { forgetFaults, learnFaults } from "./faults_view.js";
import { Feed } from "./feed.js";
import { showHeadline, showLastKnown } from "./headline_view.js";
import { eventsOf, leadersOnRecord } from "./history.js";
import { bindKeys, followHash, keepMoment } from "./keys.js";
import { showLatency } from "./latency_view.js";
import { showMembers } from "./members_view.js";
import { bindMetrics, showMetrics } from "./metrics_view.js";
import { Model } from "./model.js";
import { choose, moment, whenChosen } from "./moment.js";
import { bindNodes, learnNodes } from "./nodes_view.js";
import { bindNotify, forgetLeader, noteLeader } from "./notify.js";
import { bindPartition } from "./partition.js";
import { showPicture } from "./picture_view.js";
import { bindTimeline, showReigns } from "./reigns_view.js";
import { sceneOf } from "./scene.js";
import { Refused, Session, Unreachable } from "./session.js";

/** A single message is drawn at once for the eye; in a stream of them each drawing takes in more. */
const [DRAW_MILLISECONDS, STREAM_MILLISECONDS] = [60, 250];
const NODES_MILLISECONDS = 30_000;
/** After these a simulated cluster may have other faults. */
const NEWS = new Set(["status", "state_change", "peer_change"]);

const session = new Session();
let model = new Model();
let drawing = false;
let drawnAt = -Infinity;

const feed = new Feed(
  session,
  () => model.cursor,
  (message) => {
    model.take(message);
    if (message.type === "authenticated") showAccount(session);
    if (message.type === "status") learnPast(); // one follows each welcome and each gap
    if (message.type === "welcome") learnMore();
    if (message.type === "latency") learnMatrix(model);
    if (NEWS.has(message.type)) learnFaults(session, model.status);
    drawSoon();
  },
  ({ name, reason }) => {
    if (name === "signed-out" || name === "not-allowed") leave(reason);
    drawConnection();
  },
);

/** So long after an answer that did not come the next question follows: this connection may last for days. */
const MORE_AGAIN_MS = 5000;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let moreLater;

/** Ask what no message says. */
async function learnMore() {
  clearTimeout(moreLater);
  const learned = await session.learnPermissions();
  if (!learned && session.signedIn) moreLater = setTimeout(learnMore, MORE_AGAIN_MS);
  learnFaults(session, model.status);
  learnMatrix(model);
  learnNodes(session, model.status);
  drawSoon();
}

/** @param {Model} asked */
async function learnMatrix(asked) {
  if (document.hidden || !session.may("cluster:read")) return;
  const { members = {} } = await session.request("GET", "api/cluster/latency/matrix").catch(() => ({}));
  asked.matrix = members;
  drawSoon();
}

/** What was begun to be asked of the past: one after the other, so that nothing is asked for twice. */
let past = Promise.resolve();
/** The address has led to a place in what this one has. @type {Model | null} */
let followedFor = null;

/** Ask for what this page did not hear: what was before it was opened, and since then whatever it missed. */
function learnPast() {
  const asked = model;
  past = past.then(() => learnEvents(asked)).then(() => learnRecord(asked));
}

/** @param {Model} asked */
async function learnEvents(asked) {
  for (const hole of asked.holes) {
    if (asked !== model) return; // signed out meanwhile
    try {
      const { found, after, oldest } = await eventsOf(session, hole);
      asked.fill(hole, found, after, oldest);
    } catch (error) {
      if (error instanceof Refused && error.status === 403) asked.close(hole);
      else asked.leaveOpen(hole);
    }
  }
  drawSoon();
}

/** @param {Model} asked */
async function learnRecord(asked) {
  if (asked !== model) return;
  try {
    const record = await leadersOnRecord(session);
    if (asked === model) asked.rememberRecord(record);
  } catch {
    asked.doubtAbsence();
  }
  if (followedFor !== asked) setTimeout(followHash, 2 * STREAM_MILLISECONDS); // the panels have their size then
  followedFor = asked;
  drawSoon();
}

/** List a page of events more. @param {Model} asked */
async function learnEarlier(asked) {
  asked.wantEarlier();
  past = past.then(() => learnEvents(asked));
  await past;
}

/** Draw a burst of messages once. A timer, since a hidden tab gets no animation frames but still has a title to keep. */
function drawSoon() {
  if (drawing) return;
  drawing = true;
  const streams = performance.now() - drawnAt < 2 * STREAM_MILLISECONDS;
  setTimeout(
    () => {
      drawing = false;
      drawnAt = performance.now();
      draw();
    },
    streams ? STREAM_MILLISECONDS : DRAW_MILLISECONDS,
  );
}

function draw() {
  model.live = feed.live;
  const now = sceneOf(model, null);
  const scene = moment() === null ? now : sceneOf(model, moment());
  giveColours(now.members.map(({ id }) => id));
  showHeadline(model, scene);
  showPicture(scene);
  showMembers(scene);
  showMetrics(model);
  showEvents(model);
  showReigns(model);
  showLatency(model, now);
  showActs(now, session);
  noteLeader(now.known ? model.status?.leader : null, now.leader?.name ?? "");
  drawConnection();
}

function drawConnection() {
  showConnection(feed, model.status !== null);
  showLastKnown(model, feed.live);
  document.title = title();
}

/** What a narrow browser tab shows. */
function title() {
  if (!session.signedIn) return "heliosd";
  if (!feed.live || !model.status) return `… ${feed.state.name === "live" ? "no answer" : feed.state.name} · heliosd`;
  if (model.status.state === "Down") return "NOT KNOWN · heliosd";
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
  choose(null);
  forgetActs();
  forgetFaults();
  learnNodes(session, null);
  forgetLeader();
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
  focusDashboard();
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
byId("reigns-period").addEventListener("change", drawSoon);
byId("heal").addEventListener("click", () => askFor("heal", session));
bindActs(() => learnFaults(session, model.status));
bindClients(session, (id, name) => askFor("disconnect", session, { id }, name));
bindEvents(drawSoon, learnEarlier);
bindKeys();
bindMetrics(drawSoon);
bindNodes();
bindNotify();
bindPartition((groups) => {
  const sides = groups.map((ids) => ids.join(", ")).join(" | ");
  askFor("part", session, { partitions: groups }, sides);
});
bindTimeline();
keepMoment();
whenChosen(draw);
addEventListener("resize", drawSoon);
addEventListener("hashchange", () => {
  session.keep();
  followHash();
});

setInterval(() => session.signedIn && !document.hidden && learnNodes(session, model.status), NODES_MILLISECONDS);
setInterval(() => (session.signedIn && !document.hidden ? draw() : drawConnection()), 1000);
showAccount(session);
askLogin("");
if (await session.restore()) {
  showAccount(session);
  feed.connect();
}
