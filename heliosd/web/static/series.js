/** Values with the times at which they came, oldest first; as many as fit into a span of time. */

export class Series {
  /** Unix milliseconds. @type {number[]} */
  times = [];
  /** @type {number[]} */
  values = [];

  /**
   * @param {number} keptMs how far back values are kept
   * @param {number} apartMs of values closer than this only the newest is kept
   */
  constructor(keptMs, apartMs) {
    this.keptMs = keptMs;
    this.apartMs = apartMs;
  }

  /** @param {number} at Unix milliseconds @param {unknown} value anything but a number is left out */
  add(at, value) {
    if (typeof value !== "number" || !Number.isFinite(value) || !Number.isFinite(at)) return;
    const before = this.times.at(-2) ?? -Infinity;
    if (this.times.length > 1 && at - before < this.apartMs) {
      this.times.pop();
      this.values.pop();
    }
    this.times.push(at);
    this.values.push(value);
    while (this.times[0] < at - this.keptMs) {
      this.times.shift();
      this.values.shift();
    }
  }

  /** How much the value grows in a second, by all that is kept; null where that cannot be said. A fall is a restart of the counting. */
  rate() {
    const seconds = ((this.times.at(-1) ?? 0) - (this.times[0] ?? 0)) / 1000;
    if (seconds <= 0) return null;
    let grown = 0;
    for (let at = 1; at < this.values.length; at++) {
      const step = this.values[at] - this.values[at - 1];
      grown += step >= 0 ? step : this.values[at];
    }
    return grown / seconds;
  }
}

/**
 * The series under a name, made if missing.
 *
 * @param {Map<string, Series>} all
 * @param {string} name
 * @param {() => Series} create
 */
export function seriesOf(all, name, create) {
  let found = all.get(name);
  if (!found) all.set(name, (found = create()));
  return found;
}

/** Whether values rise or fall, in words: the newer half's mean against the older half's. @param {number[]} values oldest first */
export function trendText(values) {
  if (values.length < 4) return "";
  const middle = Math.floor(values.length / 2);
  const mean = (/** @type {number[]} */ part) => part.reduce((sum, one) => sum + one, 0) / part.length;
  const [before, after] = [mean(values.slice(0, middle)), mean(values.slice(middle))];
  const margin = Math.abs(before) * 0.2;
  if (after > before + margin) return "rising";
  return after < before - margin ? "falling" : "steady";
}
