/** Draws the custom metrics. */

import { byId, clip, draw, foreign, make, rows, spark, write } from "./dom.js";
import { integer, measure, text } from "./format.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Metric} Metric */

const FILTER_FROM = 10;
const SHOWN_AT_MOST = 200;
const natural = new Intl.Collator("en", { numeric: true });

/** @param {Model} model */
export function showMetrics({ metrics, values, status }) {
  const filter = /** @type {HTMLInputElement} */ (byId("metrics-filter"));
  filter.hidden = metrics.size < FILTER_FROM;
  const wanted = filter.hidden ? "" : filter.value.trim().toLowerCase();
  const all = [...metrics].filter((item) => !wanted || described(item).includes(wanted));
  all.sort(([one], [other]) => natural.compare(one, other));
  const shown = all.slice(0, SHOWN_AT_MOST);
  const body = /** @type {HTMLElement} */ (byId("metrics").querySelector("tbody"));
  // A name may be deleted and registered anew; its labels and help, written once, must not outlive it.
  /** @type {[string, [string, Metric]][]} */
  const items = shown.map((item) => [`${item[1].created_at} ${item[0]}`, item]);
  rows(
    body,
    items,
    (_key, item) => makeMetric(...item),
    (row, [name, metric]) => {
      const value = /** @type {HTMLElement} */ (row.querySelector('[data-field="value"]'));
      const measured = measure(metric.value);
      if (value.dataset.shown !== undefined && value.dataset.shown !== measured) flash(row);
      value.dataset.shown = measured;
      write(value, measured);
      write(/** @type {Element} */ (row.querySelector('[data-field="type"]')), text(metric.type));
      write(/** @type {Element} */ (row.querySelector('[data-field="extra"]')), extra(metric));
      draw(row.getElementsByClassName("spark")[0], values.get(name)?.values ?? []);
    },
  );
  const part = shown.length < metrics.size ? `${integer(shown.length)} of ` : "";
  write(byId("metrics-count"), metrics.size ? part + integer(metrics.size) : "");
  byId("metrics").hidden = shown.length === 0;
  byId("metrics-empty").hidden = shown.length > 0;
  write(
    byId("metrics-empty"),
    wanted ? "None fits the filter." : status ? "None are registered." : "Not known yet.",
  );
}

/** @param {[string, Metric]} item */
function described([name, metric]) {
  return `${name} ${metric.type} ${Object.entries(metric.labels ?? {})
    .flat()
    .join(" ")}`.toLowerCase();
}

/** What stands under a histogram's value, which is its count. @param {Metric} metric */
function extra({ type, count, sum }) {
  return type === "histogram" && count ? `mean ${measure((sum ?? 0) / count)}` : "";
}

/** Let a row light up for a moment. @param {HTMLElement} row */
function flash(row) {
  for (const running of row.getAnimations()) running.cancel();
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  row.animate([{ backgroundColor: "rgb(232 147 12 / 0.18)" }, { backgroundColor: "transparent" }], 900);
}

/**
 * @param {string} name
 * @param {Metric} metric
 */
function makeMetric(name, metric) {
  const labels = Object.entries(metric.labels ?? {}).map(([key, value]) =>
    make("bdi", { class: "label" }, `${key}=${value}`),
  );
  return make(
    "tr",
    { "data-metric": clip(name) },
    make(
      "th",
      { scope: "row" },
      make("span", { class: "name" }, foreign(name)),
      ...labels,
      ...(metric.help ? [make("bdi", { class: "under" }, metric.help)] : []),
    ),
    make("td", { class: "wide quiet", "data-field": "type" }),
    make("td", { class: "wide" }, spark()),
    make(
      "td",
      { class: "number" },
      make("span", { "data-field": "value" }),
      make("span", { class: "under", "data-field": "extra" }),
    ),
  );
}
