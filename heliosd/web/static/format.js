/** Numbers and times as people read them. */

const NOTHING = "–";
const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short" });
const fullDay = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric" });
const offset = new Intl.DateTimeFormat("en", { timeZoneName: "longOffset" });

/** @param {unknown} value */
export function integer(value) {
  return typeof value === "number" ? whole.format(value) : NOTHING;
}

/** A measured value: four significant digits at most, never in exponents within sight. @param {unknown} value */
export function measure(value) {
  if (typeof value !== "number") return NOTHING;
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return whole.format(value);
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e15 || size < 1e-4)) return value.toExponential(3);
  return value.toLocaleString(
    "en",
    size >= 1000 ? { maximumFractionDigits: 1 } : { maximumSignificantDigits: 4 },
  );
}

/** Milliseconds with digits that line up in a column. @param {unknown} value */
export function milliseconds(value) {
  if (typeof value !== "number") return NOTHING;
  return value.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: value < 0.1 ? 2 : 1 });
}

/** @param {unknown} value */
export function bytes(value) {
  if (typeof value !== "number") return NOTHING;
  if (value < 1024) return `${value} B`;
  const power = Math.min(4, Math.floor(Math.log2(value) / 10));
  return `${(value / 1024 ** power).toFixed(1)} ${["", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

/** The local time of day. @param {string | number} timestamp RFC 3339, or Unix milliseconds */
export function timeOfDay(timestamp) {
  const date = new Date(timestamp);
  return Number.isNaN(date.getTime()) ? NOTHING : clock.format(date);
}

/** The local time of day, after the date where that is not today. @param {string | number} timestamp as above */
export function timeOfEvent(timestamp) {
  const date = new Date(timestamp);
  if (Number.isNaN(date.getTime()) || date.toDateString() === new Date().toDateString()) return timeOfDay(timestamp);
  return `${day.format(date)} ${clock.format(date)}`;
}

/** The local time with date, milliseconds and zone. @param {string | number} timestamp as above */
export function fullTime(timestamp) {
  const date = new Date(timestamp);
  if (Number.isNaN(date.getTime())) return NOTHING;
  const part = String(date.getMilliseconds()).padStart(3, "0");
  return `${fullDay.format(date)}, ${clock.format(date)}.${part} ${zone(date)}`;
}

/** The zone of all times on the page, such as UTC+01:00. */
export function zone(date = new Date()) {
  const name = offset.formatToParts(date).find(({ type }) => type === "timeZoneName")?.value ?? "";
  return name === "GMT" ? "UTC" : name.replace("GMT", "UTC");
}

/** @param {number} seconds */
export function age(seconds) {
  if (seconds < 2) return "now";
  if (seconds < 120) return `${Math.floor(seconds)} s ago`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min ago` : `${Math.floor(seconds / 3600)} h ago`;
}

/** A length of time in its two largest units. @param {number} ms */
export function lasting(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const [minutes, hours] = [Math.floor(seconds / 60), Math.floor(seconds / 3600)];
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** @param {unknown} value */
export function text(value) {
  return value === undefined || value === null || value === "" ? NOTHING : String(value);
}
