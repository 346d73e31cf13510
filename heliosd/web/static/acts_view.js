/** Draws the buttons of what a person may do, asks in a dialog before it is done, and reports what came of it. */

import { ACTS, isOffered } from "./acts.js";
import { byId, make, rows, write } from "./dom.js";
import { timeOfEvent } from "./format.js";

/** @typedef {import("./acts.js").Act} Act */
/** @typedef {import("./acts.js").Field} Field */
/** @typedef {import("./acts.js").Known} Known */
/** @typedef {import("./session.js").Session} Session */

/** What the open dialog does when it is confirmed. @type {(() => Promise<string>) | null} */
let confirmed = null;
/** @type {import("./members.js").Member[]} */
let members = [];
/** Called after each act. */
let done = () => {};
/** Counts what was asked for here, so that an answer to something earlier does not touch the dialog of now. */
let asked = 0;
/** Counts the sessions. */
let sessions = 0;

/** @param {import("./scene.js").Scene} scene of now @param {Session} session */
export function showActs(scene, session) {
  members = scene.members;
  const simulated = scene.status?.node === undefined;
  const offered = ACTS.filter((act) => scene.status && isOffered(act, session.permissions, simulated));
  byId("acts-panel").hidden = offered.length === 0;
  byId("clients-list").hidden = !offered.some(({ id }) => id === "disconnect");
  byId("partition").hidden = byId("heal").hidden = !offered.some(({ id }) => id === "part");
  const groups = [...new Set(offered.map(({ group }) => group).filter(Boolean))];
  rows(
    byId("acts"),
    groups.map((group) => [group, offered.filter((act) => act.group === group)]),
    (group) => make("div", { class: "group", role: "group", "aria-label": group }, make("span", { class: "caption" }, group), make("div", { class: "chips" })),
    (row, acts) => showGroup(/** @type {HTMLElement} */ (row.lastElementChild), acts, session),
  );
}

/** @param {HTMLElement} row @param {Act[]} acts @param {Session} session */
function showGroup(row, acts, session) {
  rows(
    row,
    acts.map((act) => [act.id, act]),
    (_key, act) => {
      const button = make("button", { type: "button", "data-act": act.id }, `${act.label}…`);
      button.addEventListener("click", () => ask(act, session));
      return button;
    },
    () => {},
  );
}

/** Ask for an act that something else on the page leads to, with values that are chosen already. @param {string} id @param {Session} session @param {Record<string, any>} chosen @param {string} about in words */
export function askFor(id, session, chosen = {}, about = "") {
  const act = ACTS.find((one) => one.id === id);
  if (act) ask({ ...act, load: undefined, fields: Object.keys(chosen).length ? [] : act.fields }, session, chosen, about);
}

/** Nothing of an earlier session is left. */
export function forgetActs() {
  asked += 1;
  sessions += 1;
  dialog().close();
  write(byId("act-report"), "");
}

/** Let the dialog's buttons act. @param {() => void} after each act */
export function bindActs(after) {
  done = after;
  byId("act-cancel").addEventListener("click", () => dialog().close());
  byId("act-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement} */ (byId("act-confirm"));
    const act = confirmed;
    if (!act || button.disabled) return;
    button.disabled = true;
    const [mine, session] = [asked, sessions];
    try {
      const report = await act();
      if (session !== sessions) return;
      write(byId("act-report"), report);
      if (mine === asked) dialog().close();
      done();
    } catch (error) {
      if (mine === asked) showError(error);
      else if (session === sessions) write(byId("act-report"), /** @type {Error} */ (error).message);
    } finally {
      if (mine === asked) button.disabled = false;
    }
  });
}

/** @param {Act} act @param {Session} session @param {Record<string, any>} chosen @param {string} about */
async function ask(act, session, chosen = {}, about = "") {
  write(byId("act-report"), "");
  asked += 1;
  const mine = asked;
  let loaded = null;
  try {
    loaded = act.load ? await session.request("GET", act.load) : null;
  } catch (error) {
    if (mine === asked) write(byId("act-report"), `${act.label}: ${/** @type {Error} */ (error).message}`);
    return;
  }
  if (mine !== asked) return; // something else is asked for by now
  const known = { members, loaded };
  write(byId("act-title"), act.label);
  write(byId("act-says"), about ? `${about}. ${act.says}` : act.says);
  write(byId("act-confirm"), act.confirm ?? act.label);
  const empty = act.fields.find(({ type, choices }) => type === "select" && choices?.(known).length === 0);
  byId("act-error").hidden = !empty;
  write(byId("act-error"), empty ? `There is no ${empty.label.toLowerCase()} to choose.` : "");
  byId("act-confirm").toggleAttribute("disabled", empty !== undefined);
  byId("act-fields").replaceChildren(...act.fields.map((field) => makeField(field, known)));
  confirmed = async () => {
    const { method, path, body } = act.request({ ...valuesOf(act.fields), ...chosen });
    const answer = await session.request(method, path, body);
    return `${act.label}: ${reportOf(answer)}.`;
  };
  dialog().showModal();
  if (act.heals) byId("act-confirm").focus();
}

/** What came of it. @param {any} answer */
function reportOf({ message, leader, permit }) {
  const until = permit && message !== "Permit ended" ? `, ${permit.member} may be stopped until ${timeOfEvent(permit.expires_at)}` : "";
  return message ? `${message}${until}` : leader ? `${leader} leads` : "done";
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
