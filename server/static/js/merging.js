// The dialog that asks with whom a person is to be merged.

import { api, domainPath } from "./api.js";
import { openDialog } from "./dialogs.js";
import { freshId, h, replace } from "./dom.js";
import { explain } from "./errors.js";
import { gettext as _ } from "./i18n.js";

const MOST = 20;

// The name of another person of the domain, or null.
export function chosenPerson(domain, person) {
  return new Promise((resolve) => {
    const id = freshId("other");
    const input = h("input", { class: "input", id, type: "search", autocomplete: "off", spellcheck: "false" });
    const list = h("ul", { class: "choices" });
    const search = async () => {
      const query = new URLSearchParams({ search: input.value.trim(), limit: MOST + 1 });
      try {
        const answer = await api(`${domainPath(domain, "people")}?${query}`);
        const others = answer.people.filter((one) => one.person !== person).slice(0, MOST);
        const choice = (one) => h("li", {}, h("button", { class: "button", type: "button", onclick: () => dialog.close(one.person) }, one.person));
        replace(list, others.length ? others.map(choice) : h("li", { class: "muted" }, _("There is nobody else.")));
      } catch (error) {
        replace(list, h("li", {}, explain(error)));
      }
    };
    input.addEventListener("input", search);
    const content = h(
      "div",
      { class: "stack" },
      h("div", { class: "field" }, h("label", { for: id }, _("Search by name")), input),
      list,
      h("div", { class: "dialog-actions" }, h("button", { class: "button", type: "button", onclick: () => dialog.close() }, _("Cancel"))),
    );
    const dialog = openDialog(_("With whom is {name} to be merged?", { name: person }), content, { onclose: (name) => resolve(name || null) });
    search();
    input.focus();
  });
}
