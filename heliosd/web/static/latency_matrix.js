/** Latencies between all members as a table: who measured, to whom. Values in, values out. */

/** @typedef {{id: string, name: string, cells: (number | null)[]}} Row milliseconds, in the order of the members; null: not measured */

/**
 * What the daemon knows of the members' own measurements; where it has none of this node's, those of this node.
 *
 * @param {import("./members.js").Member[]} members
 * @param {Record<string, Record<string, any>>} measured `members` of `GET …/latency/matrix`
 * @param {any} latency the data of a `latency` message
 * @param {any} status
 * @returns {Row[]}
 */
export function matrixOf(members, measured, latency, status) {
  const rows = members
    .filter(({ id, answers }) => answers && measured[id])
    .map(({ id, name }) => ({ id, name, cells: members.map((to) => (to.answers ? (measured[id][to.id]?.avg_value_ms ?? null) : null)) }));
  if (measured[status.node_id]) return rows;
  const own = members.map(({ id, answers }) => {
    const { aggregated } = latency.peers[id] ?? {};
    return answers && aggregated?.count > 0 ? aggregated.avg_value_ms : null;
  });
  return [{ id: status.node_id, name: status.observed_by, cells: own }, ...rows];
}
