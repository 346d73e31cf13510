/** Draws the table of all members, and what stopping one of them would do. */

import { byId, clip, copying, fieldsOf, foreign, make, rows, timed, write } from "./dom.js";
import { age, bytes, integer, lasting, milliseconds, text, timeOfEvent } from "./format.js";
import { isLate } from "./lag.js";
import { ifStopped, ownIsDown } from "./members.js";
import { health, NOT_KNOWN } from "./peer_health.js";

/** @typedef {import("./members.js").Member} Member */
/** @typedef {import("./members.js").Lag} Lag */
/** @typedef {import("./scene.js").Scene} Scene */

const STALE_SECONDS = 30;
/** A peer that was healthy so long ago is not known to be, while this node's own member does not ask it. */
const UNASKED_SECONDS = 3;

/** @param {Scene} scene */
export function showMembers(scene) {
  const { status, members, at } = scene;
  const body = /** @type {HTMLElement} */ (byId("members").querySelector("tbody"));
  rows(
    body,
    members.map((member) => [`${member.id} ${member.name}`, member]),
    (_key, member) => makeMember(member),
    (row, member) => fill(row, member, scene),
  );
  write(byId("members-count"), members.length ? integer(members.length) : "");
  byId("members").hidden = members.length === 0;
  byId("members-empty").hidden = members.length > 0;
  write(byId("members-empty"), status ? "No members are known." : "Not known yet.");
  byId("past").hidden = at === null;
  if (at !== null) timed(byId("past-time"), `As it was at ${timeOfEvent(at)}`, at);
}

/** @param {HTMLElement} row @param {Member} member @param {Scene} scene */
function fill(row, member, { members, status, at }) {
  const { peer, own } = member;
  const latency = peer.latency ?? {};
  const now = at === null;
  const since = contactSeconds(latency, status.observed_at);
  const unasked = now && !own && since !== null && since > UNASKED_SECONDS && ownIsDown(members);
  const { level, word } = unasked ? NOT_KNOWN : own || !now ? plainHealth(member) : health(peer);
  const parts = fieldsOf(row);
  row.dataset.health = level;
  row.dataset.leads = String(member.leads);
  parts.health.dataset.level = level;
  write(parts["health-word"], word);
  write(parts.state, text(member.state));
  parts.state.classList.toggle("tag", member.leads);
  write(parts.voter, member.voter ? "voter" : "learner");
  write(parts.own, own ? "this node" : "");
  write(parts.lag, lagText(member.lag));
  const lost = now && !own && !member.answers; // only its last known values can be shown
  const even = member.lag?.entries === 0;
  write(parts["lag-time"], lost && even ? "last known" : lagTime(member.lag));
  const late = isLate(member.lag);
  parts.lag.classList.toggle("late", late);
  parts["lag-time"].classList.toggle("late", late);
  parts.lag.classList.toggle("quiet", lost && even);
  const silent = lost && since !== null;
  timed(parts.since, silent ? `since ${timeOfEvent(latency.last_contact_unix * 1000)}` : "", silent ? latency.last_contact_unix * 1000 : null);
  write(parts.contact, own || !now ? "–" : since === null ? "never" : lost && since < 2 ? "just lost" : age(since));
  const old = own || since === null || since > STALE_SECONDS || !member.answers;
  for (const part of ["contact", "avg"]) parts[part].classList.toggle("quiet", old);
  const measured = now && !lost && latency.sample_count > 0; // without samples the numbers are 0, which would look fast
  write(parts.avg, milliseconds(measured ? latency.avg_latency_ms : undefined));
  write(parts.p99, measured ? `p99 ${milliseconds(latency.p99_latency_ms)}` : "");
  const stopped = ifStopped(members, member);
  parts.stopped.dataset.level = stopped.level;
  parts.stopped.title = stopped.long;
  write(parts.stopped, stopped.short);
  write(parts.etcd, etcdText(peer));
  write(parts.alarms, (peer.alarms ?? []).join(", "));
}

/** Of this node, and of what is past. @param {Member} member @returns {{level: string, word: string}} */
function plainHealth({ own, answers, state }) {
  if (answers) return { level: "ok", word: "Healthy" };
  return { level: "bad", word: own ? state : "Unreachable" };
}

/** @param {Lag | null} lag */
function lagText(lag) {
  return lag === null ? "–" : integer(lag.entries);
}

/** @param {Lag | null} lag */
function lagTime(lag) {
  return lag === null || lag.ms < 1000 ? "" : lasting(lag.ms);
}

/** Seconds between the last answer and the observation, by the daemon's clock; null: none yet. @param {any} latency @param {string} observedAt */
function contactSeconds({ last_contact_unix: at }, observedAt) {
  return at ? Math.max(0, Date.parse(observedAt) / 1000 - at) : null;
}

/** @param {any} peer with etcd: what its member reports of itself */
function etcdText({ version, db_size_bytes: size, db_quota_bytes: quota }) {
  const share = quota ? ` of ${bytes(quota)} (${Math.round((100 * size) / quota)}\u00a0%)` : "";
  return version ? `etcd ${version}, database ${bytes(size)}${share}` : "";
}

/** @param {Member} member */
function makeMember({ id, name, own, peer }) {
  const field = (/** @type {string} */ key, /** @type {string} */ kind = "") =>
    make("span", { "data-field": key, class: kind });
  return make(
    "tr",
    { "data-member": clip(id) },
    make(
      "th",
      { scope: "row" },
      make("span", { class: "name" }, foreign(name)),
      field("own", "quiet small"),
      ...(name === id ? [] : [copying(id, "id")]),
      ...(own || !peer.address ? [] : [copying(peer.address, "address")]),
      field("etcd", "under"),
      make("span", { "data-field": "alarms", class: "under alarm" }),
    ),
    make("td", {}, field("state"), field("voter", "under plain")),
    make(
      "td",
      { "data-field": "health", class: "health" },
      make("span", { class: "mark", "aria-hidden": "true" }),
      field("health-word"),
      field("since", "under plain"),
    ),
    make("td", { class: "number" }, field("lag"), field("lag-time", "under plain")),
    make("td", { class: "number wide" }, field("contact")),
    make("td", { class: "number wide" }, field("avg"), field("p99", "under plain")),
    make("td", { "data-field": "stopped", class: "stopped" }),
  );
}
