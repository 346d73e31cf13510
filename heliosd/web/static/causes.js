/** Why a leader was lost or a peer does not answer, in words. */

/** By cause: what holds now, and what was. @type {Map<string, [string, string]>} */
const CAUSES = new Map([
  ["transfer", ["planned", "planned"]],
  ["stopped", ["it does not answer", "it stopped answering"]],
  ["unreachable", ["it is cut off", "it was cut off"]],
  ["stepped_down", ["it stepped down", "it stepped down"]],
  ["removed", ["it was removed", "it was removed"]],
]);

/** "" where the cause is not known. @param {unknown} cause */
export function causeText(cause) {
  return CAUSES.get(String(cause))?.[0] ?? "";
}

/** The same of what has passed. @param {unknown} cause */
export function pastCauseText(cause) {
  return CAUSES.get(String(cause))?.[1] ?? "";
}
