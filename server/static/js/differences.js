// Where the two stores of a domain differ, and making one like the other.

import { api, domainPath } from "./api.js";
import { confirmed } from "./dialogs.js";
import { h, replace } from "./dom.js";
import { explain, problem } from "./errors.js";
import { settle } from "./gone.js";
import { gettext as _, ngettext } from "./i18n.js";
import { icon } from "./icons.js";
import { looking } from "./looking.js";
import { toast } from "./toast.js";

const LISTED = 100;

// A card with `element` and `reload()`; `changed()` is called after a repair.
export function differencesCard(domain, changed) {
  const body = h("div", { class: "stack", "aria-live": "polite" });
  const load = async () => {
    replace(body, looking(_("Comparing …")));
    try {
      const found = await api(domainPath(domain, "differences"));
      replace(body, ...shown(found, (direction) => mend(domain, direction, changed)));
    } catch (error) {
      if (error.code === "pgvector_off") replace(body, h("p", { class: "muted" }, _("There is one store only: pgvector is switched off.")));
      else replace(body, problem(error, load));
    }
  };
  load();
  const again = h("button", { class: "button slim square", type: "button", "aria-label": _("Compare again"), onclick: load }, icon("sync"));
  return { element: h("section", { class: "card" }, h("div", { class: "spread card-head" }, h("h2", {}, _("PKL and pgvector")), again), body), reload: load };
}

function shown(found, repair) {
  const pending = found.pending > 0 && h("p", { class: "small muted" }, ngettext("pgvector still gets {count} change by itself.", "pgvector still gets {count} changes by itself.", found.pending));
  if (found.total === 0) return [h("p", { class: "row all-well" }, icon("check"), _("Both stores hold the same.")), pending].filter(Boolean);
  return [
    h("p", { class: "row differs" }, icon("warning"), h("strong", {}, ngettext("{count} picture differs", "{count} pictures differ", found.total))),
    h("ul", { class: "differences" }, found.differences.slice(0, LISTED).map((one) => h("li", {}, h("span", { class: "difference-source", title: one.source }, one.source), h("span", { class: "small muted" }, kind(one.kind))))),
    found.total > LISTED && h("p", { class: "small muted" }, _("The first {count} are shown.", { count: LISTED })),
    h(
      "div",
      { class: "row" },
      h("button", { class: "button slim", type: "button", onclick: () => repair("pkl_to_pgvector") }, _("Make pgvector like PKL")),
      h("button", { class: "button slim", type: "button", onclick: () => repair("pgvector_to_pkl") }, _("Make PKL like pgvector")),
    ),
    pending,
  ].filter(Boolean);
}

function kind(code) {
  const words = {
    only_in_pkl: _("only in PKL"),
    only_in_pgvector: _("only in pgvector"),
    other_content: _("different pictures"),
    other_person: _("different people"),
    other_faces: _("different faces"),
    other_embedding: _("different embeddings"),
  };
  return words[code] ?? code;
}

async function mend(domain, direction, changed) {
  const path = domainPath(domain, "repair");
  try {
    await settle();
    const would = await api(path, { method: "POST", json: { direction, dry_run: true } });
    const parts = [
      ngettext("{count} picture is copied.", "{count} pictures are copied.", would.copied),
      ngettext("{count} picture is taken out for good.", "{count} pictures are taken out for good.", would.removed),
    ];
    const title = direction === "pkl_to_pgvector" ? _("Make pgvector like PKL?") : _("Make PKL like pgvector?");
    if (!(await confirmed(title, parts.join(" "), _("Repair"), { danger: would.removed > 0 }))) return;
    await api(path, { method: "POST", json: { direction } });
    toast(_("Both stores hold the same now."));
    changed();
  } catch (error) {
    toast(explain(error));
  }
}
