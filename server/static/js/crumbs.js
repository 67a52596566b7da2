// Links between the levels of the galleries.

import { h } from "./dom.js";
import { gettext as _ } from "./i18n.js";

export function domainLink(domain) {
  return `/galleries?${new URLSearchParams({ domain })}`;
}

export function personLink(domain, person) {
  return `/galleries?${new URLSearchParams({ domain, person })}`;
}

// The way back up from a domain, or from a person of it.
export function crumbs(domain) {
  const links = [["/galleries", _("Galleries")], domain && [domainLink(domain), domain]].filter(Boolean);
  return h("nav", { class: "crumbs", "aria-label": _("Where this is") }, h("ol", {}, links.map(([href, text]) => h("li", {}, h("a", { href }, text)))));
}
