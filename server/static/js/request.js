// How an answer came about: where the time went, the same request for a terminal, and the answer itself.

import { copyable } from "./clipboard.js";
import { h } from "./dom.js";
import { facts } from "./facts.js";
import { gettext as _, milliseconds } from "./i18n.js";

export function timings(result) {
  const spent = result.answer.timing_ms;
  const search = Math.max(spent.search_pkl ?? 0, spent.search_pgvector ?? 0);
  const stages = [
    ["read", _("Read the picture"), spent.decode],
    ["detect", _("Find faces"), spent.detect],
    ["align", _("Align"), spent.align],
    ["embed", _("Describe faces"), spent.embed],
    ["search", _("Search"), search],
    ["rest", _("Receive and answer"), 0],
  ].map(([key, label, time]) => ({ key, label, time: time ?? 0 }));
  const known = stages.reduce((sum, stage) => sum + stage.time, 0);
  stages.at(-1).time = Math.max(0, spent.total - known);
  const parts = stages.filter((stage) => stage.time > 0);
  return h(
    "section",
    { class: "timings", "aria-label": _("Where the time went") },
    h("div", { class: "spread" }, h("h3", {}, _("Time")), h("span", { class: "number" }, milliseconds(spent.total))),
    h(
      "div",
      { class: "timebar", "aria-hidden": "true" },
      parts.map((stage) => h("span", { class: `time-${stage.key}`, style: { "flex-grow": String(stage.time) } })),
    ),
    h(
      "ul",
      { class: "legend" },
      parts.map((stage) => h("li", {}, h("span", { class: `dot time-${stage.key}`, "aria-hidden": "true" }), stage.label, h("span", { class: "number muted" }, milliseconds(stage.time)))),
    ),
    searches(spent),
  );
}

function searches(spent) {
  if (spent.search_pkl === undefined || spent.search_pgvector === undefined) return null;
  const values = { pkl: milliseconds(spent.search_pkl), pgvector: milliseconds(spent.search_pgvector) };
  return h("p", { class: "muted small" }, _("Both stores were searched at the same time: PKL {pkl}, pgvector {pgvector}.", values));
}

export function sameRequest(result) {
  return h(
    "div",
    { class: "stack" },
    h("details", { class: "fold" }, h("summary", {}, _("The same request with curl")), copyable(curl(result), "curl", { wrap: true })),
    h("details", { class: "fold" }, h("summary", {}, _("The whole answer as JSON")), copyable(JSON.stringify(result.answer, null, 2), "JSON")),
  );
}

function curl(result) {
  const query = new URLSearchParams({ domain: result.domain, language: result.language });
  const file = `image=@${result.name}`;
  const parts = ["curl"];
  if (facts.guarded) parts.push(`-H "Authorization: $TOKEN"`);
  parts.push(`-F ${quoted(file)}`, quoted(`${location.origin}/analyze?${query}`));
  return parts.join(" ");
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
