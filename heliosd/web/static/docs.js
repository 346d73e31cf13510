/** The API as a page: /openapi.json and /asyncapi.json, shown readably. */

import { byId, make } from "./dom.js";
import { exampleOf, itemSchema, typeText, valueSchema } from "./schema.js";

const METHODS = ["get", "post", "put", "delete"];
const DEEPEST = 3;

try {
  const [openapi, asyncapi] = await Promise.all([load("openapi.json"), load("asyncapi.json")]);
  byId("version").textContent = openapi.info.version;
  const main = byId("main");
  main.replaceChildren(...rest(openapi), ...messages(asyncapi), ...closeCodes(asyncapi));
  contents(main);
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
} catch (error) {
  byId("state").textContent = `The descriptions could not be loaded: ${error}`;
}

/** @param {string} name */
async function load(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return response.json();
}

/** @param {any} api @returns {HTMLElement[]} */
function rest(api) {
  const shown = [make("h2", { id: "rest" }, "REST"), make("p", {}, ...prose(api.info.description))];
  for (const { name } of api.tags) {
    for (const [path, item] of Object.entries(api.paths)) {
      for (const method of METHODS) {
        const operation = /** @type {any} */ (item)[method];
        if (!operation || operation.deprecated || !operation.tags.includes(name)) continue;
        shown.push(operationItem(api, path, method, operation));
      }
    }
  }
  return shown;
}

/** @param {any} api @param {string} path @param {string} method @param {any} operation */
function operationItem(api, path, method, operation) {
  const item = make(
    "section",
    { class: "item", id: operation.operationId, "data-link": `${method.toUpperCase()} ${path}` },
    make("h3", {}, make("span", { class: "method" }, method.toUpperCase()), path),
    make("p", {}, ...prose([operation.summary, operation.description].filter(Boolean).join(". "))),
  );
  const parameters = operation.parameters ?? [];
  if (parameters.length) {
    const rows = parameters.map((/** @type {any} */ one) => [one.name, one.schema, one.required]);
    item.append(make("h4", {}, "Parameters"), table(api, rows));
  }
  const body = operation.requestBody?.content["application/json"]?.schema;
  if (body) item.append(make("h4", {}, "Body"), shape(api, body), example(api, body));
  for (const [status, answer] of Object.entries(operation.responses)) {
    const content = /** @type {any} */ (answer).content;
    if (!content) continue;
    const [media, { schema }] = /** @type {[string, any]} */ (Object.entries(content)[0]);
    item.append(make("h4", {}, `${status} ${media}`));
    if (media !== "application/json" || schema.type === "string") continue;
    item.append(shape(api, schema), example(api, schema));
  }
  const errors = Object.keys(operation.responses).filter((status) => operation.responses[status].$ref && status !== "default");
  if (errors.length) item.append(make("p", { class: "quiet" }, `Errors: ${errors.join(", ")}, each {"error", "field"?}.`));
  return item;
}

/** @param {any} api @returns {HTMLElement[]} */
function messages(api) {
  const groups = [
    ["sendMessages", "messages", "Messages of the daemon", `What ${api.channels.cluster.address} sends, as text frames of JSON.`],
    ["takeCommands", "commands", "Messages of a client", "What a client may send on the same connection."],
  ];
  return groups.flatMap(([operation, id, title, text]) => [
    make("h2", { id }, title),
    make("p", {}, text),
    ...api.operations[operation].messages.map((/** @type {any} */ { $ref }) => messageItem(api, $ref)),
  ]);
}

/** @param {any} api @param {string} reference */
function messageItem(api, reference) {
  const name = /** @type {string} */ (reference.split("/").pop());
  const message = api.components.messages[name];
  return make(
    "section",
    { class: "item", id: name, "data-link": message.name },
    make("h3", {}, message.name),
    make("p", {}, ...prose([message.summary, message.description].filter(Boolean).join(". "))),
    shape(api, message.payload),
    example(api, message.payload),
  );
}

/** @param {any} api */
function closeCodes(api) {
  const rows = Object.entries(api.channels.cluster["x-close-codes"]).map(([code, row]) => {
    const { meaning, reconnect } = /** @type {any} */ (row);
    return make("tr", {}, make("td", {}, make("code", {}, code)), make("td", {}, ...prose(meaning)), make("td", {}, reconnect));
  });
  return [
    make("h2", { id: "close-codes" }, "Close codes"),
    make("div", { class: "frame" }, make("table", {}, heads("code", "meaning", "reconnect?"), make("tbody", {}, ...rows))),
  ];
}

/** Text in which `…` is code. @param {string} text @returns {(Node | string)[]} */
function prose(text) {
  return text.split("`").map((part, place) => (place % 2 ? make("code", {}, part) : part));
}

/** @param {string[]} names */
function heads(...names) {
  return make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name))));
}

/** The fields of a schema; of several alternatives each. @param {any} api @param {any} schema @param {number} depth @returns {HTMLElement} */
function shape(api, schema, depth = 0) {
  const whole = resolved(api, schema);
  if (whole.anyOf && !whole.properties) {
    return make("div", {}, ...whole.anyOf.map((/** @type {any} */ one) => shape(api, one, depth)));
  }
  const required = new Set(whole.required ?? []);
  const rows = Object.entries(whole.properties ?? {}).map(([name, part]) => [name, part, required.has(name)]);
  const text = whole.description ? [make("p", { class: "quiet" }, ...prose(whole.description))] : [];
  if (!rows.length) return make("div", {}, ...text, make("p", {}, make("code", {}, typeText(api, schema))));
  return make("div", {}, ...text, table(api, rows, depth));
}

/** @param {any} api @param {any[][]} rows @param {number} depth */
function table(api, rows, depth = 0) {
  const lines = rows.flatMap(([name, schema, required]) => {
    const part = resolved(api, schema);
    const always = required ? "always" : "optional";
    const meaning = prose(schema.description ?? "");
    const cells = [[make("code", {}, name)], [make("code", {}, typeText(api, schema))], [always], meaning];
    const row = make("tr", {}, ...cells.map((cell) => make("td", {}, ...cell)));
    const inner = part.properties ? part : resolved(api, valueSchema(part) ?? itemSchema(part));
    if (!inner.properties || depth >= DEEPEST) return [row];
    const details = make("details", { class: "deeper" }, make("summary", {}, `fields of ${name}`), shape(api, inner, depth + 1));
    return [row, make("tr", {}, make("td", { colspan: "4" }, details))];
  });
  return make("div", { class: "frame" }, make("table", {}, heads("field", "type", "", "meaning"), make("tbody", {}, ...lines)));
}

/** @param {any} api @param {any} schema */
function example(api, schema) {
  const text = JSON.stringify(exampleOf(api, schema), null, 1);
  const pre = document.createElement("pre");
  pre.textContent = text;
  return make("details", {}, make("summary", {}, "Example"), pre);
}

/** @param {any} api @param {any} schema @returns {any} */
function resolved(api, schema) {
  return schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;
}

/** @param {HTMLElement} main */
function contents(main) {
  const nav = byId("contents");
  for (const element of main.querySelectorAll("h2, section.item")) {
    const text = element.getAttribute("data-link") ?? element.textContent ?? "";
    const link = make("a", { href: `#${element.id}` }, text);
    nav.append(element.tagName === "H2" ? make("p", {}, link) : link);
  }
}
