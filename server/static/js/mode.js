// How a domain is searched, and changing that.

import { api, domainPath } from "./api.js";
import { openDialog } from "./dialogs.js";
import { forgetDomains, modeName } from "./domains.js";
import { freshId, h, replace } from "./dom.js";
import { explain } from "./errors.js";
import { gateList } from "./gates.js";
import { dateTime, gettext as _, percent } from "./i18n.js";
import { icon } from "./icons.js";
import { toast } from "./toast.js";

const MODES = ["pkl_only", "dual", "pgvector_only"];
const SHARES = [1, 0.5, 0.1, 0.01];

// A card with `element` and `show(state)`, where the state is what `GET /domains/D/mode` says; `changed()` is called
// after a change.
export function modeCard(domain, changed) {
  const body = h("div", { class: "stack" });
  const element = h("section", { class: "card" }, h("h2", {}, _("How it is searched")), body);
  const show = (state) => {
    const buttons = MODES.map((mode) => {
      const current = state.mode === mode;
      const choose = () => ask(domain, state, mode, changed);
      return h("button", { class: "segment", type: "button", "aria-pressed": String(current), onclick: choose }, modeName(mode));
    });
    replace(
      body,
      h("div", { class: "segments", role: "group", "aria-label": _("How it is searched") }, buttons),
      h("p", { class: "muted small" }, about(state.mode)),
      state.mode === "dual" && state.sample < 1 && h("p", { class: "muted small" }, _("{share} of the requests are compared, the others are answered from PKL.", { share: percent(state.sample, 1) })),
      state.answering.includes("failed") && h("div", { class: "notice warn" }, icon("warning"), h("p", {}, _("At present one store does not answer; answers say so: {mode}.", { mode: state.answering }))),
      h("p", { class: "small muted" }, since(state)),
    );
  };
  return { element, show };
}

function since({ default: standard, since: moment, set_by: who }) {
  if (standard || moment === null) return _("Nobody has set this; it comes from the server's settings.");
  return _("Since {moment}, set by {who}.", { moment: dateTime(moment), who });
}

function about(mode) {
  switch (mode) {
    case "pkl_only":
      return _("Answers come from PKL. pgvector is not asked.");
    case "dual":
      return _("Both stores are searched at once, and every answer is compared.");
    default:
      return _("Answers come from pgvector alone. PKL is kept for the way back.");
  }
}

function ask(domain, state, mode, changed) {
  if (mode === state.mode && mode !== "dual") return;
  const id = freshId("sample");
  const share = h("select", { id }, SHARES.map((value) => h("option", { value, selected: value === state.sample }, percent(value, 0))));
  const content = h("div", { class: "stack" });
  const put = async (force) => {
    const json = { mode, force, ...(mode === "dual" ? { sample: Number(share.value) } : {}) };
    try {
      await api(`${domainPath(domain)}/mode`, { method: "PUT", json });
    } catch (error) {
      if (error.code !== "gates_closed") return toast(explain(error));
      return refused(error.detail.gates);
    }
    dialog.close();
    forgetDomains();
    toast(_("{domain} is searched in another way now: {mode}.", { domain, mode: modeName(mode) }));
    return changed();
  };
  const actions = (button) => h("div", { class: "dialog-actions" }, h("button", { class: "button", type: "button", onclick: () => dialog.close() }, _("Cancel")), button);
  const refused = (gates) =>
    replace(
      content,
      h("div", { class: "notice bad", role: "alert" }, icon("warning"), h("p", {}, _("Not yet: pgvector has not proved itself in this domain."))),
      gateList(gates),
      h("p", { class: "muted small" }, _("You can change it all the same. It is noted who did, and on which figures; one press leads back.")),
      actions(h("button", { class: "button danger", type: "button", onclick: () => put(true) }, _("Change it all the same"))),
    );
  replace(
    content,
    h("p", {}, about(mode)),
    mode === "dual" && h("div", { class: "field" }, h("label", { for: id }, _("Share of the requests that are compared")), share),
    actions(h("button", { class: "button primary", type: "button", onclick: () => put(false) }, _("Change it"))),
  );
  const dialog = openDialog(_("Search {domain}: {mode}", { domain, mode: modeName(mode) }), content);
}
