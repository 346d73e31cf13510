/** Draws what is asked first at night: who leads since when, why the last leader fell, the quorum, and the time without a leader. */

import { pastCauseText } from "./causes.js";
import { clusterHealth } from "./cluster_health.js";
import { byId, clip, foreign, make, rows, timed, write } from "./dom.js";
import { age, integer, lasting, text, timeOfDay, timeOfEvent } from "./format.js";
import { oneMoreLoss } from "./members.js";
import { absent, countsSilence, lastFall, lastNight, unwatched, withoutLeader } from "./reigns.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./reigns.js").Span} Span */
/** @typedef {import("./reigns.js").Absence} Absence */

const DAY_MS = 86_400_000;

/** Draw everything, also when nothing is known (any more). @param {Model} model @param {Scene} scene */
export function showHeadline(model, scene) {
  const { now } = scene;
  showLeader(scene, now);
  showHealth(scene);
  showFall(model.spans, scene.at, now);
  showAbsence(model.spans, now);
  showFacts(scene);
  showWarnings(model.status?.warnings ?? []);
}

/** @param {Scene} scene @param {number} now */
function showLeader({ status, leader, since, least, at, known }, now) {
  const box = byId("leader");
  box.dataset.leader = clip(leader?.id ?? "");
  const name = !status ? "–" : (leader?.name ?? (known ? "none" : "not known"));
  if (box.textContent !== clip(name)) box.replaceChildren(foreign(clip(name)));
  const verb = leader ? "leads" : "no leader";
  const length = since === null ? "" : `${verb} for ${least ? "at least " : ""}${lasting((at ?? now) - since)}, since ${timeOfEvent(since)}${least ? " or before" : ""}`;
  const detail = !status ? "" : length || (leader ? "since before what is kept" : "");
  timed(byId("leader-detail"), detail, since);
}

/** @param {Scene} scene */
function showHealth(scene) {
  const { level, word, detail } = clusterHealth(scene);
  byId("cluster-health").dataset.level = level;
  write(byId("cluster-health-word"), word);
  write(byId("cluster-health-detail"), detail);
  byId("cluster-health-detail").hidden = !detail;
  const loss = scene.known ? oneMoreLoss(scene.members) : "";
  write(byId("one-more-loss"), loss);
  byId("one-more-loss").hidden = !loss;
}

/** @param {Span[]} spans @param {number | null} at @param {number} now */
function showFall(spans, at, now) {
  const known = at === null ? spans : spans.filter(({ from }) => from <= at);
  const fall = lastFall(known, now);
  const name = fall ? fall.before.name : "–";
  if (byId("fall").textContent !== clip(name)) byId("fall").replaceChildren(foreign(clip(name)));
  write(byId("fall-caption"), fall && fall.before.cause !== "transfer" ? "Last leader lost, and why" : "Leader before");
  if (!fall) return write(byId("fall-detail"), spans.length ? `no other leader since ${timeOfEvent(spans[0].from)}` : "");
  const { before, gapMs, silentMs, planned } = fall;
  const handedOver = before.cause === "transfer";
  const why = pastCauseText(before.cause) || "cause not known";
  const silence = silentMs ? ` after ${lasting(silentMs)} of silence` : "";
  const gap = gapMs && !handedOver ? `; ${lasting(gapMs)} without a leader${silence}` : "";
  const since = planned ? `. Since then ${planned === 1 ? "one planned change" : `${planned} planned changes`}` : "";
  const what = handedOver ? "handed over, planned" : before.cause ? `fell: ${why}` : "was last seen leading; its fall was not watched";
  timed(byId("fall-detail"), `${timeOfEvent(before.to ?? 0)} ${what}${gap}${since}.`, before.to);
}

/** @param {Span[]} spans @param {number} now */
function showAbsence(spans, now) {
  const night = lastNight(now);
  const kept = withoutLeader(spans, ...night).since < night[1];
  const [begin, end] = kept ? night : [now - DAY_MS, now];
  const [shown, day, week] = [begin, now - DAY_MS, now - 7 * DAY_MS].map((from, place) =>
    withoutLeader(spans, from, place === 0 ? end : now),
  );
  const known = Number.isFinite(shown.since);
  const late = shown.since > begin;
  const from = late ? timeOfEvent(shown.since).slice(0, -3) : shortTime(begin);
  write(byId("absence"), known ? `${absent(shown)} ${late ? `since ${from}` : "last night"}` : "–");
  const all = week.since <= now - 7 * DAY_MS;
  const detail = [
    `${from} to ${end < now ? shortTime(end) : "now"}${howOften(shown)}${countsSilence(shown) ? ", counting the silence before a loss" : ""}.`,
    late ? `Nothing is known of ${kept ? "the time before" : "last night"}.` : "",
    day.since > now - DAY_MS ? "" : `24 h: ${inAll(day, shown)}.`,
    all || (late && end === now) ? "" : `Since ${timeOfEvent(week.since).slice(0, -3)}: ${inAll(week, shown)}.`,
    all ? `7 d: ${inAll(week, shown)}.` : "",
  ];
  write(byId("absence-detail"), known ? detail.filter(Boolean).join(" ") : "");
}

/** @param {number} at */
function shortTime(at) {
  return timeOfDay(at).slice(0, 5);
}

/** How long in all; and what nobody watched, if that is more than in the time above. @param {Absence} absence @param {Absence} shown */
function inAll(absence, shown) {
  return `${absent(absence)}${absence.unseenMs > shown.unseenMs ? unwatched(absence.unseenMs) : ""}`;
}

/** @param {Absence} absence */
function howOften({ times, unseenMs }) {
  return `${times > 1 ? `, ${times} times` : ""}${unwatched(unseenMs)}`;
}


/** @param {Scene} scene */
function showFacts({ status: heard, at, term }) {
  const status = at === null ? (heard ?? {}) : { term };
  field("term", integer(at === null ? status.term : (term ?? undefined)));
  field("commit_index", integer(status.commit_index));
  field("last_applied", integer(status.last_applied) + behind(status.last_applied, status.commit_index));
  field("snapshot_last", status.snapshot_last === 0 ? "none" : integer(status.snapshot_last));
  field("uptime", text(status.uptime));
  field("clients", integer(status.clients));
  field("observed_by", text(heard?.observed_by));
  byId("observed-role").textContent = heard ? ` (${roleOf(heard)})` : "";
  const observed = byId("headline").querySelector('[data-field="observed_at"]');
  if (observed) timed(/** @type {HTMLElement} */ (observed), timeOfDay(heard?.observed_at), heard?.observed_at);
  byId("stale").hidden = !heard?.stale;
}

/** @param {any} status */
function roleOf({ state }) {
  return String(state).toLowerCase();
}

/** What an operator should know or change. @param {string[]} warnings */
function showWarnings(warnings) {
  byId("warnings").hidden = warnings.length === 0;
  rows(
    byId("warnings"),
    [...new Set(warnings)].map((warning) => [warning, warning]),
    () => make("li"),
    (row, warning) => {
      if (row.textContent !== clip(warning)) row.replaceChildren(foreign(clip(warning)));
    },
  );
}

/** How old what is shown is, where it is not live. @param {Model} model @param {boolean} live */
export function showLastKnown({ status, silentMs }, live) {
  const tag = byId("last-known");
  tag.hidden = live || !status;
  if (tag.hidden) return;
  write(tag, `Last known, ${timeOfEvent(status.observed_at)} (${age(silentMs / 1000)})`);
}

/** @param {string} name @param {string} value */
function field(name, value) {
  const element = byId("headline").querySelector(`[data-field="${name}"]`);
  if (element) write(element, value);
}

/** How far one index lies behind another, or "". @param {unknown} index @param {unknown} goal */
function behind(index, goal) {
  return typeof index === "number" && typeof goal === "number" && index < goal ? ` (−${integer(goal - index)})` : "";
}
