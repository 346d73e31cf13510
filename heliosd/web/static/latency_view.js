/** Draws the latencies between members: a matrix of now, and lines over the last 15 minutes. */

import { colourOf } from "./colours.js";
import { byId, drawing, foreign, make, roomOf, write } from "./dom.js";
import { integer, milliseconds, timeOfDay } from "./format.js";
import { matrixOf } from "./latency_matrix.js";
import { LATENCY_MS } from "./model.js";
import { trendText } from "./series.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./members.js").Member} Member */
/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./series.js").Series} Series */

const [HEIGHT, LEFT, BOTTOM, TOP] = [150, 44, 20, 8];
/** Samples further apart than this are not joined by a line. */
const HOLE_MS = 20_000;
const KINDS = [["append_entries", "Append"], ["request_vote", "Vote"], ["install_snapshot", "Snapshot"], ["probe", "Probe"]];
/** From so many times the median on, a cell stands out more and more. */
const HEAT = [1.5, 3, 6, 12];
let drawn = "";

/** @param {Model} model @param {Scene} scene */
export function showLatency({ latency, latencies, matrix, status }, { members }) {
  const panel = byId("latency-panel");
  const peers = members.filter(({ own }) => !own);
  panel.hidden = !latency || peers.length === 0;
  if (panel.hidden) return;
  const now = Date.parse(status.observed_at) || Date.now();
  const series = peers.map(({ id, name }) => ({ id, name, line: latencies.get(id) }));
  const width = Math.max(280, roomOf(byId("latency-lines")) - 28);
  const key = JSON.stringify([width, now, latency.aggregated, matrix, peers.map(({ id, name, answers }) => [id, name, answers, latency.peers[id]?.last_contact_unix])]);
  if (key === drawn) return;
  drawn = key;
  write(byId("latency-from"), "mean round trip in milliseconds");
  drawMatrix(members, matrixOf(members, matrix, latency, status));
  drawCalls(peers, latency.peers);
  drawLegend(peers);
  drawLines(series, now, width);
  write(byId("latency-trend"), trends(series, now) || "Too few measurements for a trend yet.");
}

/** Where the lines go, of those of which it can be said. @param {{name: string, line: Series | undefined}[]} series @param {number} now */
function trends(series, now) {
  const said = series.map(({ name, line }) => ({ name, trend: trendText(recent(line, now)) })).filter(({ trend }) => trend);
  return said.map(({ name, trend }) => `${name} ${trend}`).join(", ");
}

/** The values of a line that still goes on. @param {Series | undefined} line @param {number} now */
function recent(line, now) {
  return line && now - (line.times.at(-1) ?? 0) < HOLE_MS ? line.values : [];
}

/** @param {Member[]} members @param {import("./latency_matrix.js").Row[]} rows */
function drawMatrix(members, rows) {
  const all = rows.flatMap(({ cells }) => cells.filter((value) => value !== null)).sort((one, other) => one - other);
  const usual = all[Math.floor(all.length / 2)] ?? 1;
  const head = members.map(({ name }) => make("th", { scope: "col", class: "number" }, foreign(name)));
  byId("latency").querySelector("thead")?.replaceChildren(make("tr", {}, make("th", { scope: "col" }, "From, to"), ...head));
  const body = rows.map(({ id, name, cells }) => {
    const values = cells.map((value, at) => {
      const own = members[at].id === id;
      const heat = HEAT.filter((times) => value !== null && value > usual * times).length;
      return make("td", { class: "number heat", "data-heat": String(heat) }, own ? "·" : milliseconds(value ?? undefined));
    });
    return make("tr", { "data-from": id }, make("th", { scope: "row" }, foreign(name)), ...values);
  });
  byId("latency").querySelector("tbody")?.replaceChildren(...body);
}

/** Which line is whose. @param {Member[]} peers */
function drawLegend(peers) {
  byId("latency-legend").replaceChildren(...peers.map(({ id, name }) => make("li", { class: colourOf(id) }, foreign(name))));
}

/** @param {Member[]} peers @param {Record<string, any>} measured */
function drawCalls(peers, measured) {
  const used = KINDS.filter(([kind]) => peers.some(({ id }) => measured[id]?.[kind]?.count > 0));
  const head = ["Member", ...used.map(([, word]) => word), "p50", "p99", "Errors"];
  const headRow = make("tr", {}, ...head.map((word, at) => make("th", at ? { scope: "col", class: "number" } : { scope: "col" }, word)));
  byId("calls").querySelector("thead")?.replaceChildren(headRow);
  const body = peers.map(({ id, name, answers }) => {
    const of = measured[id] ?? {};
    const cell = (/** @type {any} */ stats, /** @type {string} */ value) =>
      make("td", { class: "number" }, milliseconds(answers && stats?.count > 0 ? stats[value] : undefined));
    return make(
      "tr",
      { "data-to": id },
      make("th", { scope: "row", class: colourOf(id) }, make("span", { class: "swatch", "aria-hidden": "true" }), foreign(name)),
      ...used.map(([kind]) => cell(of[kind], "avg_value_ms")),
      cell(of.aggregated, "p50_value_ms"),
      cell(of.aggregated, "p99_value_ms"),
      make("td", { class: "number" }, integer(of.aggregated?.error_count)),
    );
  });
  byId("calls").querySelector("tbody")?.replaceChildren(...body);
}

/** @param {{id: string, name: string, line: Series | undefined}[]} series @param {number} now @param {number} width */
function drawLines(series, now, width) {
  const svg = byId("latency-lines");
  const top = scaleOf(Math.max(0, ...series.flatMap(({ line }) => line?.values ?? [])));
  const x = (/** @type {number} */ at) => LEFT + ((at - (now - LATENCY_MS)) / LATENCY_MS) * (width - LEFT - 8);
  const y = (/** @type {number} */ value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
  const grid = [0, 0.5, 1].flatMap((share) => {
    const line = drawing("line", { x1: String(LEFT), x2: String(width - 8), y1: y(top * share).toFixed(1), y2: y(top * share).toFixed(1), class: "grid" });
    return [line, textAt(LEFT - 6, y(top * share) + 4, milliseconds(top * share), "end")];
  });
  const times = [15, 10, 5, 0].map((minutes) => {
    const at = now - minutes * 60_000;
    const anchor = minutes === 0 ? "end" : minutes === 15 ? "start" : "middle";
    return textAt(x(at), HEIGHT - 5, minutes === 0 ? "now" : timeOfDay(at).slice(0, 5), anchor);
  });
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.setAttribute("height", String(HEIGHT));
  const lines = series.map(({ id, line }) => drawing("path", { class: `line ${colourOf(id)}`, d: line ? pathOf(line, x, y, now) : "" }));
  svg.replaceChildren(...grid, ...times, ...lines);
}

/** The next round number above. @param {number} highest */
function scaleOf(highest) {
  const power = 10 ** Math.floor(Math.log10(Math.max(highest, 0.1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= highest) ?? power;
}

/** @param {Series} line @param {(at: number) => number} x @param {(value: number) => number} y @param {number} now */
function pathOf({ times, values }, x, y, now) {
  let path = "";
  for (let at = 0; at < times.length; at++) {
    if (times[at] < now - LATENCY_MS) continue;
    const joined = path && times[at] - times[at - 1] < HOLE_MS;
    path += `${joined ? "L" : "M"}${x(times[at]).toFixed(1)} ${y(values[at]).toFixed(1)}`;
  }
  return path;
}

/** @param {number} x @param {number} y @param {string} value @param {string} anchor */
function textAt(x, y, value, anchor) {
  const element = drawing("text", { x: x.toFixed(1), y: y.toFixed(1), "text-anchor": anchor });
  element.textContent = value;
  return element;
}
