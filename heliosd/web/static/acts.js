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
 * @property {string} [confirm] what the button says that does it; the label where it is left out
 * @property {string} group under which it is offered; "" where something else on the page leads to it
 * @property {string} needs a permission
 * @property {string} says what will happen
 * @property {Field[]} fields
 * @property {string} [load] what to GET before the dialog opens
 * @property {boolean} [heals] it only ends what is wrong, so that Enter confirms it
 * @property {boolean} [simulated] on the simulated backend only
 * @property {(values: Record<string, any>) => {method: string, path: string, body?: any}} request
 */

const [METRICS, PERMITS, SIMULATION] = ["api/cluster/custom-metrics", "api/cluster/permits", "api/cluster/simulation"];
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

const HEALED = {
  ...{ partitions: [], crashed: [], paused: [], loss: 0, latency_ms: 1 },
  ...{ disk_latency_ms: {}, clock_rate: {}, clock_offset_ms: {} },
};

/** @type {Act[]} */
export const ACTS = [
  {
    id: "transfer",
    label: "Transfer leadership",
    group: "Members",
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
    id: "may-stop",
    label: "May a member stop?",
    confirm: "Ask for the permit",
    group: "Members",
    needs: "cluster:admin",
    says: "Asks for the permit to stop a member, for a reboot say. You get it if the cluster keeps its quorum without that member and no other permit is out.",
    fields: [
      { name: "member", label: "Member", type: "select", choices: ({ members }) => members.map(named) },
      { name: "minutes", label: "For so many minutes", type: "number", value: () => "10" },
    ],
    request: ({ member, minutes }) => ({ method: "POST", path: PERMITS, body: { member, seconds: minutes * 60 } }),
  },
  {
    id: "end-permit",
    label: "Give a permit back",
    group: "Members",
    needs: "cluster:admin",
    says: "The member runs again: another one may be stopped then.",
    load: PERMITS,
    fields: [
      {
        name: "id",
        label: "Permit",
        type: "select",
        choices: ({ loaded }) => loaded.permits.map((/** @type {any} */ { id, member, user }) => ({ id, name: `${member}, for ${user}` })),
      },
    ],
    request: ({ id }) => ({ method: "DELETE", path: `${PERMITS}?${new URLSearchParams({ id })}` }),
  },
  {
    id: "add-peer",
    label: "Add a peer",
    group: "Members",
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
    group: "Members",
    needs: "cluster:admin",
    says: "The member leaves the cluster, which then can lose fewer.",
    fields: [OTHER_MEMBER],
    request: ({ id }) => ({ method: "DELETE", path: `api/cluster/peers?${new URLSearchParams({ id })}` }),
  },
  {
    id: "snapshot",
    label: "Take a snapshot",
    group: "Members",
    needs: "cluster:admin",
    says: "This node takes a snapshot now.",
    fields: [],
    request: () => ({ method: "POST", path: "api/cluster/snapshot" }),
  },
  {
    id: "register-metric",
    label: "Register a metric",
    group: "Metrics",
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
    group: "Metrics",
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
    group: "Metrics",
    needs: "cluster:write",
    says: "Its value is lost.",
    fields: [METRIC],
    request: ({ name }) => ({ method: "DELETE", path: `${METRICS}?${new URLSearchParams({ name })}` }),
  },
  {
    id: "disconnect",
    label: "Disconnect a client",
    group: "Connections",
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
    confirm: "Apply",
    group: "Simulation",
    needs: "cluster:admin",
    says: "The simulated cluster has these faults until they are changed. Nothing chosen, 0 and 1 ms heal it. Slow disks and wrong clocks end by Heal all faults.",
    load: SIMULATION,
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
        name: "paused",
        label: "Paused",
        type: "checks",
        choices: ({ members }) => members.map(named),
        value: ({ loaded }) => loaded.paused,
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
    request: ({ crashed, paused, apart, loss, latency }) => ({
      method: "PUT",
      path: SIMULATION,
      body: { crashed, paused, partitions: apart.length ? [apart] : [], loss: loss / 100, latency_ms: latency },
    }),
  },
  {
    id: "part",
    label: "Cut the connection",
    group: "",
    needs: "cluster:admin",
    says: "The members on the two sides of the line no longer reach each other, until it is healed.",
    simulated: true,
    fields: [],
    request: ({ partitions }) => ({ method: "PUT", path: SIMULATION, body: { partitions } }),
  },
  {
    id: "heal",
    heals: true,
    label: "Heal all faults",
    group: "Simulation",
    needs: "cluster:admin",
    says: "All members run and reach each other again, without loss and with 1 ms delay.",
    simulated: true,
    fields: [],
    request: () => ({ method: "PUT", path: SIMULATION, body: HEALED }),
  },
];

/** @param {Act} act @param {string[]} permissions @param {boolean} simulated */
export function isOffered({ needs, simulated: onlyThere }, permissions, simulated) {
  return (permissions.includes(needs) || permissions.includes("admin:*")) && (simulated || !onlyThere);
}
