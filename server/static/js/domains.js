// The domains that the caller may enter, and the one that is looked at: the address says which.

import { api, domainPath } from "./api.js";
import { freshId, h, replace } from "./dom.js";
import { facts } from "./facts.js";
import { gettext as _ } from "./i18n.js";
import { may } from "./session.js";

let known = null;
let loading = null;

// Every domain; asked for once, and again after `forgetDomains`.
export function listDomains() {
  loading ??= api("/domains").then(
    (answer) => (known = answer.domains),
    (error) => {
      loading = null;
      throw error;
    },
  );
  return loading;
}

export function forgetDomains() {
  known = null;
  loading = null;
  thresholds.clear();
}

const thresholds = new Map();

// Cosine distance up to which two faces of the domain count as one person; the server's own where it is not known.
export function thresholdOf(domain) {
  if (!thresholds.has(domain)) {
    const asked = api(domainPath(domain)).then((answer) => answer.threshold, () => facts.threshold);
    thresholds.set(domain, asked);
  }
  return thresholds.get(domain);
}

// The domain in the address, else the server's default, else the first that there is.
export function currentDomain() {
  const named = new URLSearchParams(location.search).get("domain");
  if (named) return named;
  const names = (known ?? []).map((entry) => entry.domain);
  return names.includes(facts.domain) || names.length === 0 ? facts.domain : names[0];
}

// How a domain is searched, in words.
export function modeName(mode) {
  const names = { pkl_only: _("PKL only"), pgvector_only: _("pgvector only"), dual: _("both stores") };
  return names[mode] ?? mode;
}

export function modeBadge(mode) {
  return h("span", { class: mode === "dual" ? "badge good" : "badge" }, modeName(mode));
}

// A labelled chooser; `choose` gets the name.
export function domainChooser(choose) {
  const id = freshId("domain");
  const select = h("select", { id, onchange: () => choose(select.value) });
  const fill = () => {
    const current = currentDomain();
    const names = new Set((known ?? []).map((entry) => entry.domain)).add(current);
    replace(select, [...names].sort().map((name) => h("option", { value: name, selected: name === current }, name)));
  };
  fill();
  if (may("analyze")) listDomains().then(fill, () => {});
  return h("div", { class: "field" }, h("label", { for: id }, _("Domain")), select);
}
