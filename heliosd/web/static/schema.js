/** JSON Schemas in words, and a value that fits one. */

const DEEPEST = 6;
const NUMBERS = { integer: 1, number: 0.5 };

/** A type as one reads it: `string`, `PeerView[]`, `"added" | "removed"`. @param {any} api @param {any} schema @returns {string} */
export function typeText(api, schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((/** @type {any} */ one) => JSON.stringify(one)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map((/** @type {any} */ one) => typeText(api, one)).join(" | ");
  if (schema.type === "array") return `${typeText(api, itemSchema(schema))}[]`;
  const values = valueSchema(schema);
  if (values) return `{name: ${typeText(api, values)}}`;
  return schema.type ?? "any";
}

/** Of an array: the schema of its items, of a tuple that of the first. @param {any} schema @returns {any} */
export function itemSchema(schema) {
  return schema.prefixItems?.[0] ?? (schema.items || {});
}

/** Of an object with any names: the schema of its values. @param {any} schema @returns {any} */
export function valueSchema(schema) {
  return typeof schema.additionalProperties === "object" ? schema.additionalProperties : null;
}

/** @param {any} api @param {any} schema @param {string} name @param {number} depth @returns {any} */
export function exampleOf(api, schema, name = "", depth = 0) {
  if (depth > DEEPEST) return null;
  const deeper = (/** @type {any} */ part, /** @type {string} */ key) => exampleOf(api, part, key, depth + 1);
  if (schema.$ref) return exampleOf(api, api.components.schemas[schema.$ref.split("/").pop()], name, depth);
  if ("const" in schema) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return exampleOf(api, schema.anyOf[0], name, depth);
  if (schema.properties) {
    return Object.fromEntries(Object.entries(schema.properties).map(([key, part]) => [key, deeper(part, key)]));
  }
  const values = valueSchema(schema);
  if (values) return { name: deeper(values, "name") };
  if (schema.type === "array") return [deeper(itemSchema(schema), name)];
  if (schema.type === "boolean") return true;
  if (schema.type === "null") return null;
  if (schema.type in NUMBERS) return Math.max(NUMBERS[/** @type {"integer"} */ (schema.type)], schema.minimum ?? 0);
  if (schema.type === "string") return textFor(schema, name);
  return {};
}

/** @param {any} schema @param {string} name */
function textFor(schema, name) {
  const isTime = schema.format === "date-time" || /(_at|_time|time_stamp|timestamp|since|first_seen|last_event)$/.test(name);
  if (isTime) return "2026-11-28T12:00:00.000000Z";
  if (/address$/.test(name)) return "127.0.0.1:7001";
  if (/uptime|interval|formatted|age$|_str$/.test(name)) return "2h15m30s";
  if (/(^|_)(id|leader|member|observed_by|peers)$/.test(name)) return "node-1";
  if (name === "epoch") return "6f1c09a2";
  return name || "text";
}
