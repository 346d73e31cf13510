/** Draws the cluster as a picture: its members, who leads, what lags, and who does not answer since when. */

import { byId, clip, drawing, roomOf } from "./dom.js";
import { integer, lasting, milliseconds, timeOfEvent } from "./format.js";
import { isLate } from "./lag.js";
import { places } from "./outline.js";

/** @typedef {import("./members.js").Member} Member */
/** @typedef {import("./outline.js").Point} Point */
/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {{member: Member, at: Point, level: string, says: string}} Node */

const [RADIUS, LOWEST, HIGHEST, A_MEMBER] = [19, 216, 480, 36];
/** Room for circles and the texts under them. */
const [BESIDE, ABOVE, BELOW] = [90, 34, 64];
let drawn = "";

/** The members with their places, as they are drawn now. @type {Node[]} */
export let nodes = [];

/** @param {Scene} scene */
export function showPicture(scene) {
  const svg = byId("picture");
  const { members, at } = scene;
  const width = Math.max(280, roomOf(svg));
  const height = Math.min(HIGHEST, LOWEST + Math.max(0, members.length - 3) * A_MEMBER);
  const where = places(members.length, { left: BESIDE, right: width - BESIDE, top: ABOVE, bottom: height - BELOW });
  nodes = members.map((member, number) => ({ member, at: where[number], ...standing(member, at) }));
  const lines = linesOf(nodes);
  const key = JSON.stringify([width, height, nodes.map(({ member: { id, name, leads, voter, answers }, level, says }) => [id, name, leads, voter, answers, level, says]), lines]);
  if (key === drawn) return;
  drawn = key;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", String(height));
  svg.setAttribute("aria-label", described(scene));
  svg.replaceChildren(...lines.flatMap(drawLine), ...nodes.map(drawNode));
}

/** @param {Member} member @param {number | null} at @returns {{level: string, says: string}} */
function standing({ answers, leads, voter, own, state, lag, peer }, at) {
  const contact = at === null && !own ? (peer.latency?.last_contact_unix ?? 0) : 0;
  if (!answers) return { level: "bad", says: own ? state.toLowerCase() : contact ? `silent since ${timeOfEvent(contact * 1000)}` : "does not answer" };
  if (leads) return { level: "ok", says: "leads" };
  if (state === "Not known") return { level: "unknown", says: "not known" };
  if (isLate(lag)) return { level: "warn", says: `lags ${integer(lag?.entries)}, ${lasting(lag?.ms ?? 0)}` };
  return { level: "ok", says: voter ? state.toLowerCase() : "learner" };
}

/** From the leader to each other member; without a leader there are none. @param {Node[]} all */
function linesOf(all) {
  const leader = all.find(({ member }) => member.leads);
  if (!leader) return [];
  return all.filter((node) => node !== leader).map(({ member, at, level }) => {
    const { avg_latency_ms: average, sample_count: samples } = (leader.member.own ? member.peer : {}).latency ?? {};
    return { from: leader.at, to: at, level, text: member.answers && samples > 0 ? `${milliseconds(average)} ms` : "" };
  });
}

/** @param {{from: Point, to: Point, level: string, text: string}} line */
function drawLine({ from, to, level, text }) {
  const line = drawing("line", { x1: from.x.toFixed(1), y1: from.y.toFixed(1), x2: to.x.toFixed(1), y2: to.y.toFixed(1), "data-level": level, class: "link" });
  if (!text) return [line];
  const label = drawing("text", { x: ((from.x + to.x) / 2).toFixed(1), y: ((from.y + to.y) / 2 - 6).toFixed(1), class: "measure" });
  label.textContent = text;
  return [line, label];
}

/** @param {Node} node */
function drawNode({ member, at, level, says }) {
  const { id, name, own, leads, voter, answers } = member;
  const group = drawing("g", {
    class: ["member", leads ? "leads" : "", voter ? "" : "learner"].join(" "),
    "data-level": level,
    "data-node": clip(id),
    transform: `translate(${at.x.toFixed(1)} ${at.y.toFixed(1)})`,
  });
  group.append(drawing("circle", { r: String(RADIUS) }));
  if (leads) group.append(drawing("path", { class: "rays", d: rays(RADIUS + 4, RADIUS + 9, 12) }));
  if (!answers) group.append(drawing("path", { class: "cross", d: "M-7 -7L7 7M7 -7L-7 7" }));
  const [title, under] = [drawing("text", { y: String(RADIUS + 22), class: "title" }), drawing("text", { y: String(RADIUS + 37) })];
  title.textContent = name.length > 22 ? `${name.slice(0, 21)}…` : name;
  under.textContent = own ? `${says} · this node` : says;
  const full = drawing("title", {});
  full.textContent = clip(`${name} (${id}): ${says}`);
  group.append(title, under, full);
  return group;
}

/** Short strokes around a circle. @param {number} inner @param {number} outer @param {number} count */
function rays(inner, outer, count) {
  return Array.from({ length: count }, (_, at) => {
    const [x, y] = [Math.cos((2 * Math.PI * at) / count), Math.sin((2 * Math.PI * at) / count)];
    return `M${(x * inner).toFixed(1)} ${(y * inner).toFixed(1)}L${(x * outer).toFixed(1)} ${(y * outer).toFixed(1)}`;
  }).join("");
}

/** The picture in words. @param {Scene} scene */
function described({ members, leader }) {
  const others = nodes.filter(({ member }) => !member.leads).map(({ member, says }) => `${member.name}: ${says}`);
  return clip(`${leader ? `${leader.name} leads` : "No leader"} of ${members.length} ${members.length === 1 ? "member" : "members"}. ${others.join(". ")}`);
}
