/** A metric's value in words: a gauge as it is, a counter with its rate, a histogram with its quantiles. Values in, words out. */

import { measure } from "./format.js";
import { quantile } from "./quantiles.js";

/** @typedef {import("./model.js").Metric} Metric */
/** @typedef {import("./series.js").Series} Series */

const SHARES = [[0.5, "p50"], [0.9, "p90"], [0.99, "p99"]];

/** What stands under the value. @param {Metric} metric @param {Series | undefined} series */
export function detailOf(metric, series) {
  if (metric.type === "counter") {
    const rate = series?.rate() ?? null;
    return rate === null ? "" : `${measure(Number(rate.toPrecision(3)))}/s`;
  }
  if (metric.type !== "histogram" || !metric.count) return "";
  const parts = SHARES.map(([share, name]) => {
    const value = quantile(metric.buckets, metric.bucket_counts, Number(share));
    const beyond = value === metric.buckets?.at(-1) ? "≥ " : "";
    return value === null ? "" : `${name} ${beyond}${measure(Number(value.toPrecision(3)))}`;
  });
  return [...parts, `mean ${measure((metric.sum ?? 0) / metric.count)}`].filter(Boolean).join(" · ");
}

/** What a filter is held against. @param {string} name @param {Metric} metric */
export function described(name, { type, labels = {} }) {
  return `${name} ${type} ${Object.entries(labels).map(([key, value]) => `${key}=${value}`).join(" ")}`.toLowerCase();
}
