/** Draws the buttons of what a person may do, asks in a dialog before it is done, and reports what came of it. */

import { ACTS, isOffered } from "./acts.js";
import { byId, make, rows, write } from "./dom.js";
import { membersOf } from "./members.js";

/** @typedef {import("./acts.js").Act} Act */
/** @typedef {import("./acts.js").Field} Field */
/** @typedef {import("./acts.js").Known} Known */
/** @typedef {import("./session.js").Session} Session */

/** What the open dialog does when it is confirmed. @type {(() => Promise<string>) | null} */
let confirmed = null;
let status = /** @type {any} */ (null);

/** @param {import("./model.js").Model} model @param {Session} session */
export function showActs(model, session) {
  status = model.status;
  const offered = ACTS.filter((act) => status && isOffered(act, session.permissions, status.node === undefined));
  byId("acts-panel").hidden = offered.length === 0;
  rows(
    byId("acts"),
    offered.map((act) => [act.id, act]),
    (_key, act) => {
      const button = make("button", { type: "button", "data-act": act.id }, `${act.label}…`);
      button.addEventListener("click", () => ask(act, session));
      return button;
    },
    () => {},
  );
}

/** Nothing of an earlier session is left. */
export function forgetActs() {
  dialog().close();
  write(byId("act-report"), "");
}

/** Let the dialog's buttons act. */
export function bindActs() {
  byId("act-cancel").addEventListener("click", () => dialog().close());
  byId("act-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement} */ (byId("act-confirm"));
    const act = confirmed;
    if (!act || button.disabled) return;
    button.disabled = true;
    try {
      write(byId("act-report"), await act());
      dialog().close();
    } catch (error) {
      showError(error);
    } finally {
      button.disabled = false;
    }
  });
}

/** @param {Act} act @param {Session} session */
async function ask(act, session) {
  write(byId("act-report"), "");
  let loaded = null;
  try {
    loaded = act.load ? await session.request("GET", act.load) : null;
  } catch (error) {
    write(byId("act-report"), `${act.label}: ${/** @type {Error} */ (error).message}`);
    return;
  }
  const known = { members: membersOf(status), loaded };
  write(byId("act-title"), act.label);
  write(byId("act-says"), act.says);
  write(byId("act-confirm"), act.label);
  byId("act-error").hidden = true;
  byId("act-fields").replaceChildren(...act.fields.map((field) => makeField(field, known)));
  confirmed = async () => {
    const { method, path, body } = act.request(valuesOf(act.fields));
    const answer = await session.request(method, path, body);
    return `${act.label}: ${answer.message ?? (answer.leader ? `${answer.leader} leads` : "done")}.`;
  };
  dialog().showModal();
}

/** @param {Field} field @param {Known} known */
function makeField({ name, label, type, choices, value, optional }, known) {
  const start = value?.(known) ?? "";
  const offered = choices?.(known) ?? [];
  const id = `act-field-${name}`;
  if (type === "checks") {
    const boxes = offered.map((choice) => {
      const box = make("input", { type: "checkbox", name, value: choice.id });
      if (start.includes(choice.id)) box.setAttribute("checked", "");
      return make("label", { class: "check" }, box, make("bdi", {}, choice.name));
    });
    return make("fieldset", {}, make("legend", {}, label), ...boxes);
  }
  const need = optional ? {} : { required: "" };
  const input =
    type === "select"
      ? make(
          "select",
          { id, name, ...need },
          ...offered.map((choice) => make("option", { value: choice.id }, choice.name)),
        )
      : make("input", { id, name, type, step: "any", autocomplete: "off", value: String(start), ...need });
  return make("p", {}, make("label", { for: id }, label), input);
}

/** @param {Field[]} fields @returns {Record<string, any>} */
function valuesOf(fields) {
  const form = new FormData(/** @type {HTMLFormElement} */ (byId("act-form")));
  return Object.fromEntries(
    fields.map(({ name, type }) => {
      if (type === "checks") return [name, form.getAll(name).map(String)];
      return [name, type === "number" ? Number(form.get(name)) : String(form.get(name)).trim()];
    }),
  );
}

/** @param {unknown} error */
function showError(error) {
  byId("act-error").hidden = false;
  write(byId("act-error"), error instanceof Error ? error.message : String(error));
}

function dialog() {
  return /** @type {HTMLDialogElement} */ (byId("act-dialog"));
}
