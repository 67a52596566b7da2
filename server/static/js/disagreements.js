// Answers on which the stores disagreed, searches that pgvector failed, and who changed the mode.

import { h } from "./dom.js";
import { modeName } from "./domains.js";
import { dateTime, gettext as _, number } from "./i18n.js";
import { icon } from "./icons.js";

export function disagreementTable(rows) {
  if (!rows.length) return h("p", { class: "row all-well" }, icon("check"), _("The stores have not disagreed."));
  return table(
    _("Disagreements"),
    [_("When"), _("Why"), "PKL", "pgvector"],
    rows.map((row) => [h("span", { class: "number" }, dateTime(row.at)), reason(row.reason), nearest(row.pkl, row.threshold), nearest(row.pgvector, row.threshold)]),
  );
}

export function failureTable(rows) {
  if (!rows.length) return h("p", { class: "row all-well" }, icon("check"), _("pgvector has answered every time."));
  return table(
    _("Failures of pgvector"),
    [_("When"), _("Why")],
    rows.map((row) => [h("span", { class: "number" }, dateTime(row.at)), h("span", { lang: "en" }, row.error)]),
  );
}

export function historyTable(changes) {
  if (!changes.length) return h("p", { class: "muted" }, _("The mode was never changed."));
  return table(
    _("Changes of the mode"),
    [_("When"), _("Who"), _("What")],
    changes.map((change) => [
      h("span", { class: "number" }, dateTime(change.at)),
      change.who === "automatic" ? _("the service itself") : change.who,
      [`${modeName(change.before)} → ${modeName(change.after)} `, change.forced && h("span", { class: "badge warn" }, _("past closed gates"))],
    ]),
  );
}

// The sentence for why two stores disagree.
export function reason(code) {
  const words = {
    missing_in_pkl: _("missing in PKL"),
    missing_in_pgvector: _("missing in pgvector"),
    other_embedding: _("different embeddings"),
    threshold_edge: _("at the edge of the threshold"),
    tie: _("equally near"),
    approximate_index: _("missed by the index"),
    unexplained: _("unexplained"),
  };
  return words[code] ?? code;
}

function nearest(matches, threshold) {
  const [first] = matches;
  if (!first) return h("span", { class: "muted" }, _("nobody"));
  const name = first.person ?? _("deleted since");
  return h("span", { class: first.distance <= threshold ? "" : "muted", title: first.source }, name, " ", h("span", { class: "number small muted" }, number(first.distance, 3)));
}

function table(title, heads, rows) {
  return h(
    "div",
    { class: "table-box events", tabindex: "0", role: "region", "aria-label": title },
    h("table", { class: "table" }, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))))),
  );
}
