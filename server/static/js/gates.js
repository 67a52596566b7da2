// What must hold before pgvector may answer alone.

import { h } from "./dom.js";
import { gettext as _, number, percent } from "./i18n.js";
import { icon } from "./icons.js";

// Figures that there are once something has been compared.
const AGREEMENT = ["top1_rate", "top5_overlap"];

export function gateList(gates) {
  const compared = gates.some((gate) => gate.name === "comparisons" && gate.figure > 0);
  return h("ul", { class: "gates" }, gates.map((gate) => gateRow(gate, compared)));
}

function gateRow({ name, figure, limit, at_least: atLeast, holds }, compared) {
  const known = figure !== null && (compared || !AGREEMENT.includes(name));
  const say = (value) => (name.endsWith("rate") || name.endsWith("overlap") ? percent(value, 2) : number(value));
  const asked = atLeast ? _("at least {limit}", { limit: say(limit) }) : _("at most {limit}", { limit: say(limit) });
  return h(
    "li",
    { class: holds ? "gate holds" : "gate" },
    icon(holds ? "check" : "cross"),
    h("span", { class: "gate-name" }, gateName(name), h("span", { class: "hidden-text" }, holds ? `: ${_("holds")}` : `: ${_("does not hold")}`)),
    h("span", { class: "gate-figure number" }, known ? say(figure) : _("not known")),
    h("span", { class: "small muted" }, asked),
  );
}

function gateName(name) {
  const names = {
    comparisons: _("Compared faces"),
    top1_rate: _("Same person first"),
    top5_overlap: _("First five alike"),
    failure_rate: _("Failures of pgvector"),
    differences: _("Pictures that differ"),
  };
  return names[name] ?? name;
}
