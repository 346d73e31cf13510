/** What a person may do to the cluster from this page: one table, from which buttons, dialogs and requests are made. */

/** @typedef {{id: string, name: string}} Choice */
/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} label
 * @property {"text" | "number" | "select" | "checks"} type
 * @property {(known: Known) => Choice[]} [choices] of a select or of checks
 * @property {(known: Known) => string | string[]} [value] at the start
 * @property {boolean} [optional]
 */
/**
 * @typedef {object} Known what the fields are made of
 * @property {import("./members.js").Member[]} members
 * @property {any} loaded the answer to `load`
 */
/**
 * @typedef {object} Act
 * @property {string} id
 * @property {string} label
 * @property {string} needs a permission
 * @property {string} says what will happen
 * @property {Field[]} fields
 * @property {string} [load] what to GET before the dialog opens
 * @property {boolean} [simulated] on the simulated backend only
 * @property {(values: Record<string, any>) => {method: string, path: string, body?: any}} request
 */

const METRICS = "api/cluster/custom-metrics";
const named = (/** @type {Choice} */ { id, name }) => ({ id, name });
/** @type {Field} */
const METRIC = { name: "name", label: "Name", type: "text" };
/** @type {Field} */
const OTHER_MEMBER = {
  name: "id",
  label: "Member",
  type: "select",
  choices: ({ members }) => members.filter(({ own }) => !own).map(named),
};

/** @type {Act[]} */
export const ACTS = [
  {
    id: "transfer",
    label: "Transfer leadership",
    needs: "cluster:admin",
    says: "The chosen member becomes leader. Writes wait for a moment.",
    fields: [
      {
        name: "target",
        label: "To",
        type: "select",
        choices: ({ members }) => members.filter(({ leads, voter }) => voter && !leads).map(named),
      },
    ],
    request: ({ target }) => ({ method: "POST", path: "api/cluster/leadership/transfer", body: { target } }),
  },
  {
    id: "add-peer",
    label: "Add a peer",
    needs: "cluster:admin",
    says: "The member joins the cluster. It counts for the quorum once it is a voter.",
    fields: [
      { name: "id", label: "Id", type: "text" },
      { name: "address", label: "Address, as HOST:PORT", type: "text" },
    ],
    request: (body) => ({ method: "POST", path: "api/cluster/peers", body }),
  },
  {
    id: "remove-peer",
    label: "Remove a peer",
    needs: "cluster:admin",
    says: "The member leaves the cluster, which then can lose fewer.",
    fields: [OTHER_MEMBER],
    request: ({ id }) => ({ method: "DELETE", path: `api/cluster/peers?${new URLSearchParams({ id })}` }),
  },
  {
    id: "snapshot",
    label: "Take a snapshot",
    needs: "cluster:admin",
    says: "This node takes a snapshot now.",
    fields: [],
    request: () => ({ method: "POST", path: "api/cluster/snapshot" }),
  },
  {
    id: "register-metric",
    label: "Register a metric",
    needs: "cluster:write",
    says: "Everybody who watches the cluster sees it.",
    fields: [
      METRIC,
      {
        name: "type",
        label: "Type",
        type: "select",
        choices: () => ["gauge", "counter", "histogram"].map((id) => ({ id, name: id })),
      },
      { name: "help", label: "Help", type: "text", optional: true },
    ],
    request: (body) => ({ method: "POST", path: METRICS, body }),
  },
  {
    id: "set-metric",
    label: "Set a metric",
    needs: "cluster:write",
    says: "A gauge takes the value, a histogram observes it. A counter grows by it.",
    fields: [
      METRIC,
      {
        name: "how",
        label: "As",
        type: "select",
        choices: () => [
          { id: "value", name: "value of a gauge or histogram" },
          { id: "delta", name: "growth of a counter" },
        ],
      },
      { name: "number", label: "Number", type: "number" },
    ],
    request: ({ name, how, number }) => ({ method: "PUT", path: METRICS, body: { name, [how]: number } }),
  },
  {
    id: "delete-metric",
    label: "Delete a metric",
    needs: "cluster:write",
    says: "Its value is lost.",
    fields: [METRIC],
    request: ({ name }) => ({ method: "DELETE", path: `${METRICS}?${new URLSearchParams({ name })}` }),
  },
  {
    id: "disconnect",
    label: "Disconnect a client",
    needs: "cluster:admin",
    says: "Its connection is closed. A dashboard then waits until somebody reconnects it.",
    load: "api/cluster/clients",
    fields: [
      {
        name: "id",
        label: "Client",
        type: "select",
        choices: ({ loaded }) =>
          loaded.clients.map((/** @type {any} */ { id, user, address }) => ({ id, name: `${user}, ${address}` })),
      },
    ],
    request: ({ id }) => ({ method: "DELETE", path: `api/cluster/clients?${new URLSearchParams({ id })}` }),
  },
  {
    id: "faults",
    label: "Faults",
    needs: "cluster:admin",
    says: "The simulated cluster has these faults until they are changed. Nothing chosen, 0 and 1 ms heal it.",
    load: "api/cluster/simulation",
    simulated: true,
    fields: [
      {
        name: "crashed",
        label: "Crashed",
        type: "checks",
        choices: ({ members }) => members.map(named),
        value: ({ loaded }) => loaded.crashed,
      },
      {
        name: "apart",
        label: "Cut off from the others",
        type: "checks",
        choices: ({ members }) => members.map(named),
        value: ({ loaded }) => loaded.partitions[0] ?? [],
      },
      { name: "loss", label: "Messages lost, in %", type: "number", value: ({ loaded }) => String(loaded.loss * 100) },
      { name: "latency", label: "Delay one way, in ms", type: "number", value: ({ loaded }) => String(loaded.latency_ms) },
    ],
    request: ({ crashed, apart, loss, latency }) => ({
      method: "PUT",
      path: "api/cluster/simulation",
      body: { crashed, partitions: apart.length ? [apart] : [], loss: loss / 100, latency_ms: latency },
    }),
  },
];

/** @param {Act} act @param {string[]} permissions @param {boolean} simulated */
export function isOffered({ needs, simulated: onlyThere }, permissions, simulated) {
  return (permissions.includes(needs) || permissions.includes("admin:*")) && (simulated || !onlyThere);
}
