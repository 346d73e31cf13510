/** Why a leader was lost or a peer does not answer, in words. */

const CAUSES = new Map([
  ["transfer", "planned"],
  ["stopped", "it does not answer"],
  ["unreachable", "it is cut off"],
  ["stepped_down", "it stepped down"],
  ["removed", "it was removed"],
]);

/** "" where the cause is not known. @param {unknown} cause */
export function causeText(cause) {
  return CAUSES.get(String(cause)) ?? "";
}
