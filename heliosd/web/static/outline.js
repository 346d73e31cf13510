/** Where members stand in the cluster's picture, and who is on which side of a line through it. Values in, values out. */

/** @typedef {{x: number, y: number}} Point */

/**
 * On an ellipse, the first at its left, stretched until it fills the room.
 *
 * @param {number} count
 * @param {{left: number, right: number, top: number, bottom: number}} room
 * @returns {Point[]}
 */
export function places(count, { left, right, top, bottom }) {
  const turns = Array.from({ length: count }, (_, at) => Math.PI + (2 * Math.PI * at) / count);
  const spread = (/** @type {number[]} */ values, /** @type {number} */ from, /** @type {number} */ to) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return values.map((value) => (high - low < 0.01 ? (from + to) / 2 : from + ((value - low) / (high - low)) * (to - from)));
  };
  const across = spread(turns.map(Math.cos), left, right);
  const down = spread(turns.map(Math.sin), top, bottom);
  return turns.map((_, at) => ({ x: across[at], y: down[at] }));
}

/**
 * Which points a line leaves on its left; the line goes on beyond both its ends.
 *
 * @param {Point[]} points
 * @param {Point} from
 * @param {Point} to
 * @returns {boolean[]}
 */
export function leftOf(points, from, to) {
  return points.map(({ x, y }) => (to.x - from.x) * (y - from.y) - (to.y - from.y) * (x - from.x) < 0);
}
