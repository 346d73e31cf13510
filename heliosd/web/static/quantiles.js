/** Quantiles of a histogram, as Prometheus estimates them: evenly spread within a bucket. */

/**
 * @param {number[] | undefined} bounds upper bounds, ascending
 * @param {number[] | undefined} counts observations up to each bound, and last up to infinity
 * @param {number} share 0 to 1
 * @returns {number | null} null without observations; the highest bound where the quantile lies beyond it
 */
export function quantile(bounds, counts, share) {
  const total = counts?.at(-1) ?? 0;
  if (!bounds?.length || !counts || total <= 0) return null;
  const rank = share * total;
  const bucket = counts.findIndex((count) => count >= rank);
  if (bucket >= bounds.length) return bounds[bounds.length - 1];
  const below = bucket > 0 ? counts[bucket - 1] : 0;
  const low = bucket > 0 ? bounds[bucket - 1] : Math.min(0, bounds[0]);
  const inside = counts[bucket] - below;
  return inside > 0 ? low + ((bounds[bucket] - low) * (rank - below)) / inside : bounds[bucket];
}
