/** Draws the table of all members, and what one more loss would do. */

import { byId, clip, copying, draw, fieldsOf, foreign, make, rows, spark, write } from "./dom.js";
import { age, bytes, integer, milliseconds, text } from "./format.js";
import { health } from "./cluster_health.js";
import { membersOf, oneMoreLoss, trendText } from "./members.js";

/** @typedef {import("./members.js").Member} Member */
/** @typedef {import("./model.js").Model} Model */

const STALE_SECONDS = 30;

/** @param {Model} model */
export function showMembers({ status, latencies }) {
  const members = membersOf(status);
  const body = /** @type {HTMLElement} */ (byId("members").querySelector("tbody"));
  rows(
    body,
    members.map((member) => [`${member.id} ${member.name}`, member]),
    (_key, member) => makeMember(member),
    (row, member) => fill(row, member, status.observed_at, latencies.get(member.id)?.values ?? []),
  );
  write(byId("members-count"), members.length ? integer(members.length) : "");
  byId("members").hidden = members.length === 0;
  byId("members-empty").hidden = members.length > 0;
  write(byId("members-empty"), status ? "No members are known." : "Not known yet.");
  const loss = oneMoreLoss(members);
  write(byId("one-more-loss"), loss);
  byId("one-more-loss").hidden = !loss;
}

/**
 * @param {HTMLElement} row
 * @param {Member} member
 * @param {string} observedAt RFC 3339
 * @param {number[]} trend
 */
function fill(row, member, observedAt, trend) {
  const { peer, own } = member;
  const latency = peer.latency ?? {};
  const { level, word } = own ? ownHealth(member) : health(peer);
  const parts = fieldsOf(row);
  row.dataset.health = level;
  parts.health.dataset.level = level;
  write(parts["health-word"], word);
  write(parts.state, text(member.state));
  parts.state.classList.toggle("leads-tag", member.leads);
  parts.state.classList.toggle("tag", member.leads);
  write(parts.voter, member.voter ? "voter" : "learner");
  write(parts.address, own ? "this node" : text(peer.address));
  write(parts.lag, member.lag === null ? "–" : member.lag === 0 ? "0" : `−${integer(member.lag)}`);
  const since = contactSeconds(latency, observedAt);
  write(parts.contact, own ? "–" : since === null ? "never" : age(since));
  const old = own || since === null || since > STALE_SECONDS || !member.answers;
  for (const part of ["contact", "avg", "p99"]) parts[part].classList.toggle("quiet", old);
  const measured = latency.sample_count !== 0; // without samples the numbers are 0, which would look fast
  write(parts.avg, milliseconds(measured ? latency.avg_latency_ms : undefined));
  write(parts.p99, milliseconds(measured ? latency.p99_latency_ms : undefined));
  write(parts.trend, own ? "" : trendText(trend));
  draw(row.getElementsByClassName("spark")[0], trend);
  write(parts.etcd, etcdText(peer));
  write(parts.alarms, (peer.alarms ?? []).join(", "));
}

/** @param {Member} member @returns {{level: string, word: string}} */
function ownHealth({ answers, state }) {
  return answers ? { level: "ok", word: "Healthy" } : { level: "bad", word: state };
}

/** Seconds between the last answer and the observation, by the daemon's clock; null: none yet. @param {any} latency @param {string} observedAt */
function contactSeconds({ last_contact_unix: at }, observedAt) {
  return at ? Math.max(0, Date.parse(observedAt) / 1000 - at) : null;
}

/** @param {any} peer with etcd: what its member reports of itself */
function etcdText({ version, db_size_bytes: size, db_quota_bytes: quota }) {
  const share = quota ? ` of ${bytes(quota)} (${Math.round((100 * size) / quota)} %)` : "";
  return version ? `etcd ${version}, database ${bytes(size)}${share}` : "";
}

/** @param {Member} member */
function makeMember({ id, name, peer }) {
  const field = (/** @type {string} */ key, /** @type {string} */ kind = "") =>
    make("span", { "data-field": key, class: kind });
  return make(
    "tr",
    { "data-member": clip(id) },
    make(
      "th",
      { scope: "row" },
      make("span", { class: "name" }, foreign(name)),
      ...(name === id ? [] : [copying(id, "id")]),
      make("bdi", { class: "under", "data-field": "address" }),
      field("etcd", "under"),
      make("span", { "data-field": "alarms", class: "under alarm" }),
    ),
    make("td", {}, field("state"), field("voter", "under plain")),
    make(
      "td",
      { "data-field": "health", class: "health" },
      make("span", { class: "mark", "aria-hidden": "true" }),
      field("health-word"),
    ),
    make("td", { class: "number" }, field("lag")),
    make("td", { class: "number" }, field("contact")),
    make("td", { class: "number wide", "data-field": "avg" }),
    make("td", { class: "number wide", "data-field": "p99" }),
    make("td", { class: "wide" }, spark(), field("trend", "under plain")),
  );
}
