// Who is signed in, and the dialog for a token. The token is sent once and kept nowhere; a cookie that scripts cannot
// read takes its place.

import { api, onUnauthorized } from "./api.js";
import { openDialog } from "./dialogs.js";
import { freshId, h } from "./dom.js";
import { explain } from "./errors.js";
import { facts } from "./facts.js";
import { gettext as _ } from "./i18n.js";

const EVERYBODY = { name: "", rights: ["analyze", "enrol", "admin"], domains: null };

let caller = facts.guarded ? null : EVERYBODY;
let changed = () => {};
let dialog = null;

export function may(right) {
  return caller !== null && caller.rights.includes(right);
}

export function signedIn() {
  return facts.guarded ? caller : null;
}

// Finds out who is signed in. `listener` is called whenever that changes.
export async function startSession(listener) {
  changed = listener;
  if (!facts.guarded) return;
  onUnauthorized(askForToken);
  caller = await api("/me").catch((error) => {
    if (error.status === 401) return null;
    throw error;
  });
}

export async function signOut() {
  await api("/session", { method: "DELETE" });
  caller = null;
  changed();
}

export function askForToken() {
  if (dialog !== null) return;
  const id = freshId("token");
  const input = h("input", { class: "input", id, type: "password", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-said` });
  const said = h("p", { id: `${id}-said`, class: "small muted", role: "status" }, _("The token is sent once and is not kept in this browser."));
  const form = h(
    "form",
    { class: "stack" },
    h("p", { class: "muted" }, _("This service asks for a token. Whoever runs it can give you one.")),
    h("div", { class: "field" }, h("label", { for: id }, _("Token")), input, said),
    h(
      "div",
      { class: "dialog-actions" },
      h("button", { class: "button", type: "button", onclick: () => dialog.close() }, _("Cancel")),
      h("button", { class: "button primary" }, _("Sign in")),
    ),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      caller = await api("/session", { method: "POST", json: { token: input.value } });
    } catch (error) {
      said.textContent = error.status === 401 ? _("This token is not known here.") : explain(error);
      input.select();
      return;
    }
    dialog.close();
    changed();
  });
  dialog = openDialog(_("Sign in"), form, { onclose: () => (dialog = null) });
  input.focus();
}
