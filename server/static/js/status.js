// What runs here: models, provider, database, versions, and what the service found when it examined itself.

import { api } from "./api.js";
import { h, replace } from "./dom.js";
import { problem } from "./errors.js";
import { gettext as _, ngettext, number, pgettext } from "./i18n.js";
import { icon } from "./icons.js";
import { looking } from "./looking.js";
import { askForToken, may, signedIn } from "./session.js";
import { facts } from "./facts.js";

export const statusView = { title: () => _("Status"), render };

function render(root) {
  const ends = new AbortController();
  const body = h("div", { class: "stack", "aria-live": "polite" });
  const button = h("button", { class: "button", type: "button", onclick: () => load() }, icon("sync"), _("Check again"));
  root.append(
    h("div", { class: "page-head" }, h("div", {}, h("h1", {}, _("Status")), h("p", {}, _("What runs here, and whether everything is as it should be."))), may("admin") && button),
    body,
  );
  const load = async () => {
    button.disabled = true;
    if (!body.hasChildNodes()) replace(body, looking());
    try {
      replace(body, report(await api("/status", { signal: ends.signal })));
    } catch (error) {
      if (error.name !== "AbortError") replace(body, problem(error, load));
    }
    button.disabled = false;
  };
  if (may("admin")) load();
  else replace(body, closed());
  return () => ends.abort();
}

// What people without the right see instead.
export function closed() {
  const signIn = facts.guarded && signedIn() === null;
  return h(
    "div",
    { class: "card empty" },
    icon("key"),
    h("h2", {}, signIn ? _("Sign in first") : _("Not for this token")),
    h("p", {}, signIn ? _("This part asks for a token.") : _("This part needs a token with more rights.")),
    signIn && h("div", { class: "row" }, h("button", { class: "button primary", type: "button", onclick: askForToken }, _("Sign in"))),
  );
}

function report(status) {
  return [
    verdict(status.findings),
    h("div", { class: "columns" }, service(status), database(status.database)),
    h("div", { class: "columns" }, status.models.map(model)),
    h("div", { class: "columns" }, findings(status.findings), versions(status.versions)),
  ];
}

function verdict(findings) {
  const count = (status) => findings.filter((finding) => finding.status === status).length;
  const problems = count("problem");
  const warnings = count("warning");
  if (problems) return h("div", { class: "notice bad" }, icon("warning"), h("strong", {}, ngettext("{count} problem was found", "{count} problems were found", problems)));
  if (warnings) return h("div", { class: "notice warn" }, icon("warning"), h("strong", {}, ngettext("It works, with {count} warning", "It works, with {count} warnings", warnings)));
  return h("div", { class: "notice good" }, icon("check"), h("strong", {}, _("Everything is as it should be")));
}

function service(status) {
  return card(_("Service"), [
    [_("Version"), status.version],
    [_("Execution provider"), status.provider],
    [_("Mode of new domains"), h("code", {}, status.mode)],
  ]);
}

function database(found) {
  const states = { ok: ["good", pgettext("database", "answers")], off: ["", pgettext("database", "switched off")], failed: ["bad", pgettext("database", "does not answer")] };
  const [kind, label] = states[found.state];
  return card(_("Database"), [
    [_("State"), h("span", { class: `badge ${kind}` }, label)],
    [_("Kind"), found.kind === "embedded" ? _("embedded, runs with the service") : _("of your own (DATABASE_URL)")],
    [_("Versions"), found.postgresql && `PostgreSQL ${found.postgresql}, pgvector ${found.pgvector}`],
    [_("Reason"), found.detail && h("span", { lang: "en" }, found.detail)],
  ]);
}

function model({ role, card: about }) {
  const [width, height] = about.input_size;
  return card(
    role === "detector" ? _("Model that finds faces") : _("Model that describes faces"),
    [
      [_("Name"), h("strong", {}, about.name)],
      [_("Family"), about.family],
      [_("Input"), `${width ? `${width} × ${height}` : _("any size")}, ${about.colour}, ${about.layout}`],
      [_("Numbers for a face"), about.dimension ? number(about.dimension) : null],
      [_("Alignment"), about.alignment === "none" ? null : about.alignment],
      [_("Threshold"), about.threshold === null ? null : h("span", {}, number(about.threshold, 3), about.threshold_origin && h("span", { class: "muted small threshold-origin", lang: "en" }, about.threshold_origin))],
      [_("Licence"), about.licence],
      [_("Made from"), about.origin],
      ["sha256", h("code", { class: "digest", title: about.origin_sha256 }, about.origin_sha256)],
      [_("Compared with its source"), Object.entries(about.parity).map(([name, value]) => `${name} ${+Number(value).toPrecision(7)}`).join(", ")],
      [_("Notes"), about.notes && h("span", { lang: "en" }, about.notes)],
    ],
  );
}

function findings(all) {
  const marks = { ok: ["good", "check", _("all well")], warning: ["warn", "warning", _("warning")], problem: ["bad", "warning", _("problem")] };
  return h(
    "section",
    { class: "card" },
    h("h2", {}, _("What an examination found")),
    h(
      "ul",
      { class: "findings" },
      all.map((finding) => {
        const [kind, mark, label] = marks[finding.status];
        return h("li", {}, h("span", { class: `badge ${kind}` }, icon(mark), label), h("div", { lang: "en" }, h("strong", {}, finding.part), h("p", { class: "small muted" }, finding.detail)));
      }),
    ),
  );
}

function versions(all) {
  return card(
    _("Packages"),
    Object.entries(all).map(([name, version]) => [name, h("span", { class: "number" }, version)]),
  );
}

function card(title, rows) {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "section",
    { class: "card" },
    h("h2", {}, title),
    h("dl", { class: "pairs" }, shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  );
}
