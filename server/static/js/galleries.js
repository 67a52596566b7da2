// The second view: who is enrolled. The address says how deep one looks: all domains, one, or one person of it.

import { domainLink } from "./crumbs.js";
import { asked } from "./dialogs.js";
import { domainView, makeDomain } from "./gallery.js";
import { forgetDomains, listDomains, modeBadge } from "./domains.js";
import { h, replace } from "./dom.js";
import { problem } from "./errors.js";
import { gettext as _, ngettext } from "./i18n.js";
import { icon } from "./icons.js";
import { looking } from "./looking.js";
import { personView } from "./person.js";
import { may, signedIn } from "./session.js";
import { closed } from "./status.js";

export const galleriesView = { title: () => _("Galleries"), render };

function render(root) {
  if (!may("analyze")) return void root.append(h("h1", { class: "hidden-text" }, _("Galleries")), closed());
  const query = new URLSearchParams(location.search);
  const domain = query.get("domain");
  const person = query.get("person");
  if (domain && person) return personView(root, domain, person);
  if (domain) return domainView(root, domain);
  return everyDomain(root);
}

function everyDomain(root) {
  const list = h("div", { "aria-live": "polite" }, looking());
  root.append(
    h(
      "div",
      { class: "page-head" },
      h("div", {}, h("h1", {}, _("Galleries")), h("p", {}, _("A domain is a gallery of its own: people of one domain are never looked for in another."))),
      may("admin") && h("button", { class: "button primary", type: "button", onclick: askForDomain }, icon("plus"), _("New domain")),
    ),
    list,
  );
  const load = async () => {
    try {
      forgetDomains();
      replace(list, cards(await listDomains()));
    } catch (error) {
      replace(list, problem(error, load));
    }
  };
  load();
  return undefined;
}

function cards(domains) {
  if (!domains.length) return h("div", { class: "card empty" }, icon("folder"), h("h2", {}, _("There is no domain yet")), h("p", {}, may("admin") ? _("Make one, and enrol people in it.") : _("Somebody with the right to do so has to make one.")));
  return h("ul", { class: "domains" }, domains.map((entry) => h("li", {}, card(entry))));
}

function card({ domain, mode, faces }) {
  return h(
    "a",
    { class: "card domain-card", href: domainLink(domain) },
    h("div", { class: "spread" }, h("h2", {}, domain), modeBadge(mode)),
    h("p", { class: "muted" }, faces.pkl === null ? _("The PKL galleries do not answer.") : ngettext("{count} face in PKL", "{count} faces in PKL", faces.pkl)),
    h("p", { class: "muted" }, faces.pgvector === null ? _("pgvector is off or does not answer.") : ngettext("{count} face in pgvector", "{count} faces in pgvector", faces.pgvector)),
  );
}

async function askForDomain() {
  const own = signedIn()?.domains;
  const check = (name) => {
    if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(name)) return _("Use letters without accents, digits, hyphens, dots and underscores, first a letter or digit.");
    return own && !own.includes(name) ? _("Your token does not open this domain.") : "";
  };
  const name = await asked(_("New domain"), _("Name"), { action: _("Make it"), hint: _("For example a country, a branch or a customer."), check });
  if (name !== null) await makeDomain(name);
}
