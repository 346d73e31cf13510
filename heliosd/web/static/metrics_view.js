/** Draws the custom metrics. */

import { byId, clip, draw, fieldsOf, foreign, make, rows, spark, write } from "./dom.js";
import { integer, measure, text } from "./format.js";
import { described, detailOf } from "./metric_text.js";
import { trendText } from "./series.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Metric} Metric */

const [FILTER_FROM, STEP] = [10, 200];
/** So often the trend and the rate of a metric that stands still are drawn anew. */
const REDRAW_MS = 5000;
const natural = new Intl.Collator("en", { numeric: true });
let atMost = STEP;
/** What each row shows. @type {WeakMap<HTMLElement, {metric: Metric, at: number}>} */
const filled = new WeakMap();

/** Let the filter and "more" act. @param {() => void} redraw */
export function bindMetrics(redraw) {
  byId("metrics-filter").addEventListener("input", redraw);
  byId("metrics-more").addEventListener("click", () => {
    atMost += STEP;
    redraw();
  });
}

/** @param {Model} model */
export function showMetrics({ metrics, values, status }) {
  const filter = /** @type {HTMLInputElement} */ (byId("metrics-filter"));
  filter.hidden = metrics.size < FILTER_FROM;
  const wanted = filter.hidden ? "" : filter.value.trim().toLowerCase();
  const all = [...metrics].filter((item) => !wanted || described(...item).includes(wanted));
  all.sort(([one], [other]) => natural.compare(one, other));
  const shown = all.slice(0, atMost);
  const body = /** @type {HTMLElement} */ (byId("metrics").querySelector("tbody"));
  // A name may be deleted and registered anew; its labels and help, written once, must not outlive it.
  /** @type {[string, [string, Metric]][]} */
  const items = shown.map((item) => [`${item[1].created_at} ${item[0]}`, item]);
  const now = Date.now();
  rows(
    body,
    items,
    (_key, item) => makeMetric(...item),
    (row, [name, metric]) => {
      const last = filled.get(row);
      if (last?.metric === metric && now - last.at < REDRAW_MS) return;
      filled.set(row, { metric, at: now });
      fill(row, metric, values.get(name));
    },
  );
  const part = shown.length < metrics.size ? `${integer(shown.length)} of ` : "";
  write(byId("metrics-count"), metrics.size ? part + integer(metrics.size) : "");
  byId("metrics").hidden = shown.length === 0;
  byId("metrics-more").hidden = shown.length === all.length;
  write(byId("metrics-more"), `Show ${integer(Math.min(STEP, all.length - shown.length))} more of ${integer(all.length - shown.length)}`);
  byId("metrics-empty").hidden = shown.length > 0;
  write(byId("metrics-empty"), wanted ? "None fits the filter." : status ? "None are registered." : "Not known yet.");
}

/** @param {HTMLElement} row @param {Metric} metric @param {import("./series.js").Series} [series] */
function fill(row, metric, series) {
  const parts = fieldsOf(row);
  write(parts.value, measure(metric.value));
  write(parts.type, text(metric.type));
  write(parts.extra, detailOf(metric, series));
  write(parts.trend, series ? trendText(series.values) : "");
  draw(row.getElementsByClassName("spark")[0], series?.values ?? []);
}

/** @param {string} name @param {Metric} metric */
function makeMetric(name, metric) {
  const labels = Object.entries(metric.labels ?? {}).map(([key, value]) =>
    make("bdi", { class: "label" }, `${key}=${value}`),
  );
  return make(
    "tr",
    { role: "row", "data-metric": clip(name) },
    make(
      "th",
      { role: "rowheader", scope: "row" },
      make("span", { class: "name" }, foreign(name)),
      ...labels,
      ...(metric.help ? [make("bdi", { class: "under" }, metric.help)] : []),
    ),
    make("td", { role: "cell", class: "wide quiet", "data-field": "type" }),
    make("td", { role: "cell", class: "wide" }, spark(), make("span", { class: "under", "data-field": "trend" })),
    make("td", { role: "cell", class: "number" }, make("span", { "data-field": "value" }), make("span", { class: "under", "data-field": "extra" })),
  );
}
