// The API, rendered from /openapi.json. The document is in English.

import { copyable } from "./clipboard.js";
import { api } from "./api.js";
import { h, replace } from "./dom.js";
import { problem } from "./errors.js";
import { gettext as _, languageTag } from "./i18n.js";
import { icon } from "./icons.js";
import { looking } from "./looking.js";
import { OpenApi } from "./openapi.js";

export const docsView = { title: () => _("API"), render };

function render(root) {
  const ends = new AbortController();
  const body = h("div", {}, looking());
  root.append(
    h(
      "div",
      { class: "page-head" },
      h("div", {}, h("h1", {}, _("API")), h("p", {}, _("Every address of the service, with an example. Programs find the same as OpenAPI."))),
      h("a", { class: "button", href: "/openapi.json", target: "_blank", rel: "noopener" }, icon("docs"), "openapi.json"),
    ),
    body,
  );
  const load = async () => {
    try {
      replace(body, reference(new OpenApi(await api("/openapi.json", { signal: ends.signal }))));
      if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
    } catch (error) {
      if (error.name !== "AbortError") replace(body, problem(error, load));
    }
  };
  load();
  return () => ends.abort();
}

function reference(spec) {
  const groups = spec.groups();
  return h(
    "div",
    { class: "docs", lang: "en" },
    index(groups),
    h("div", { class: "stack" }, groups.map((group) => [h("div", { class: "docs-group" }, h("h2", {}, group.tag), group.about && h("p", { class: "muted" }, marked(group.about))), group.operations.map((operation) => endpoint(spec, operation))])),
  );
}

// All addresses; folded where the window has no room for them at the side.
function index(groups) {
  return h(
    "details",
    { class: "fold docs-index", open: matchMedia("(min-width: 901px)").matches },
    h("summary", { lang: languageTag() }, _("Addresses")),
    h("nav", { "aria-label": _("Addresses") }, groups.map((group) => [h("h2", {}, group.tag), h("ul", {}, group.operations.map((operation) => h("li", {}, h("a", { href: `#${operation.operationId}` }, method(operation), h("span", {}, marked(operation.summary))))))])),
  );
}

function endpoint(spec, operation) {
  const answers = spec.answers(operation);
  const success = answers.find((answer) => answer.status.startsWith("2"));
  const body = spec.body(operation);
  return h(
    "article",
    { class: "card endpoint", id: operation.operationId },
    h("h3", { class: "endpoint-head" }, method(operation), h("code", {}, operation.path)),
    h("p", { class: "endpoint-summary" }, marked(operation.summary)),
    operation.description && h("p", { class: "muted" }, marked(operation.description)),
    operation.parameters.length > 0 && table(_("Parameters"), operation.parameters.map((parameter) => [parameter.name, `${parameter.in}${parameter.required ? ", required" : ""}`, marked(parameter.description ?? "")])),
    body && table(_("Body: {type}", { type: body.type }), spec.fields(body.schema).map((field) => [field.name, `${field.type}${field.required ? ", required" : ""}`, marked(field.about)])),
    h("h4", {}, _("Example")),
    copyable(spec.curl(operation), `curl ${operation.path}`, { wrap: true }),
    success?.example !== undefined && copyable(typeof success.example === "string" ? success.example : JSON.stringify(success.example, null, 2), `${success.status} ${operation.path}`),
    success && success.example === undefined && h("p", { class: "muted" }, success.type ? `${success.status}: ${success.description} (${success.type})` : `${success.status}: ${success.description}`),
    success?.schema && spec.fields(success.schema).length > 0 && h("details", { class: "fold" }, h("summary", {}, _("Fields of the answer")), fieldList(spec.fields(success.schema))),
    h("details", { class: "fold" }, h("summary", {}, _("All answers")), table("", answers.map((answer) => [answer.status, answer.type ?? "", marked(answer.description)]))),
  );
}

function method(operation) {
  return h("span", { class: `method ${operation.method}` }, operation.method.toUpperCase());
}

function table(title, rows) {
  return h(
    "div",
    { class: "table-box", tabindex: "0", role: "region", "aria-label": title || _("All answers") },
    title && h("h4", {}, title),
    h("table", { class: "table" }, h("tbody", {}, rows.map(([name, kind, about]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, name)), h("td", { class: "small muted" }, kind), h("td", {}, about))))),
  );
}

function fieldList(fields) {
  return h(
    "ul",
    { class: "field-list" },
    fields.map((field) => h("li", {}, h("code", {}, field.name), h("span", { class: "small muted" }, ` ${field.type} `), field.about && h("span", { class: "small" }, marked(field.about)), field.fields.length > 0 && fieldList(field.fields))),
  );
}

// Text with `code` in it.
function marked(text) {
  return text.split(/(`[^`]+`)/).map((part) => (part.startsWith("`") ? h("code", {}, part.slice(1, -1)) : part));
}
