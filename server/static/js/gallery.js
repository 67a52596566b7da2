// A domain: who is in it, and for those who may, how it is filled and mended.

import { api, domainPath } from "./api.js";
import { receiveFiles } from "./capture.js";
import { crumbs, domainLink, personLink } from "./crumbs.js";
import { asked } from "./dialogs.js";
import { differencesCard } from "./differences.js";
import { forgetDomains, modeBadge } from "./domains.js";
import { h, replace } from "./dom.js";
import { explain, problem } from "./errors.js";
import { fillingCard } from "./filling.js";
import { isGoing, onGone, settle } from "./gone.js";
import { gettext as _, ngettext } from "./i18n.js";
import { icon } from "./icons.js";
import { looking } from "./looking.js";
import { enrolSomebody } from "./newperson.js";
import { go } from "./router.js";
import { may } from "./session.js";
import { toast } from "./toast.js";

const PAGE = 60;
const TYPING_MS = 200;

export function domainView(root, domain) {
  const ends = new AbortController();
  const facts = h("p", {});
  const badge = h("span", {});
  const found = h("p", { class: "small muted", role: "status" });
  const grid = h("div", {}, looking());
  const search = searchField(() => load());
  const bar = h("div", { class: "spread" }, search.element, found);
  let shown = PAGE;

  const enrol = (files = []) => {
    if (may("enrol")) enrolSomebody(domain, files, (person) => person && changed());
  };
  const load = async () => {
    const query = new URLSearchParams({ search: search.value.trim(), limit: shown, offset: 0 });
    try {
      const answer = await api(`${domainPath(domain, "people")}?${query}`, { signal: ends.signal });
      draw(answer);
    } catch (error) {
      if (error.code === "unknown_domain") replace(root, crumbs(), missing(domain));
      else if (error.name !== "AbortError") replace(grid, problem(error, load));
    }
  };
  const describe = async () => {
    const about = await api(domainPath(domain), { signal: ends.signal }).catch(() => null);
    if (about === null) return;
    replace(badge, modeBadge(about.mode));
    replace(facts, said(about));
  };
  const draw = (answer) => {
    const people = answer.people.filter(({ person }) => !isGoing(domainPath(domain, "people", person)));
    const total = answer.total - (answer.people.length - people.length);
    const searched = search.value.trim() !== "";
    bar.hidden = total === 0 && !searched;
    found.textContent = searched ? ngettext("{count} person found", "{count} people found", total) : ngettext("{count} person", "{count} people", total);
    const more = () => {
      shown += PAGE;
      load();
    };
    replace(
      grid,
      answer.unavailable.length > 0 && h("div", { class: "notice warn" }, icon("warning"), h("p", {}, _("pgvector does not answer; what only it holds is missing here."))),
      people.length ? h("ul", { class: "people" }, people.map((one) => h("li", {}, personCard(domain, one)))) : nobody(searched, enrol),
      answer.total > answer.people.length && h("div", { class: "row centred" }, h("button", { class: "button", type: "button", onclick: more }, _("Show more"))),
    );
  };
  const changed = () => {
    load();
    describe();
    differences?.reload();
  };

  const differences = may("admin") ? differencesCard(domain, () => changed()) : null;
  const main = h(
    "section",
    { class: "card stack zone", "aria-label": _("People") },
    bar,
    grid,
  );
  root.append(
    crumbs(),
    h(
      "div",
      { class: "page-head" },
      h("div", {}, h("div", { class: "row" }, h("h1", {}, domain), badge), facts),
      h(
        "div",
        { class: "row" },
        may("enrol") && h("button", { class: "button primary", type: "button", onclick: () => enrol() }, icon("plus"), _("Enrol somebody")),
        may("admin") && h("button", { class: "button quiet", type: "button", onclick: () => deleteDomain(domain) }, icon("trash"), h("span", { class: "narrow-hidden" }, _("Delete the domain"))),
      ),
    ),
    may("admin") ? h("div", { class: "gallery" }, main, h("div", { class: "stack" }, fillingCard(domain, changed, ends.signal), differences.element)) : main,
  );
  load();
  describe();
  const stops = [onGone(changed), may("enrol") && receiveFiles(main, enrol)].filter(Boolean);
  return () => {
    ends.abort();
    stops.forEach((stop) => stop());
  };
}

function missing(domain) {
  const make = () => makeDomain(domain);
  return h(
    "div",
    { class: "card empty" },
    icon("folder"),
    h("h1", {}, _("There is no domain {domain}", { domain })),
    may("admin") && h("div", { class: "row" }, h("button", { class: "button primary", type: "button", onclick: make }, icon("plus"), _("Make it"))),
  );
}

// Makes an empty domain and goes there.
export async function makeDomain(name) {
  try {
    await api(domainPath(name), { method: "POST" });
    forgetDomains();
    go(domainLink(name));
  } catch (error) {
    toast(explain(error));
  }
}

function searchField(search) {
  let timer = null;
  const input = h("input", { class: "input", type: "search", placeholder: _("Search by name"), "aria-label": _("Search by name"), autocomplete: "off", spellcheck: "false" });
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, TYPING_MS);
  });
  return { element: h("div", { class: "search" }, icon("search"), input), get value() { return input.value; } };
}

function said({ people, faces }) {
  const parts = [ngettext("{count} person", "{count} people", people), ngettext("{count} face in PKL", "{count} faces in PKL", faces.pkl)];
  if (faces.pgvector !== null) parts.push(ngettext("{count} face in pgvector", "{count} faces in pgvector", faces.pgvector));
  return parts.join(" · ");
}

function personCard(domain, { person, faces, thumbnail }) {
  return h(
    "a",
    { class: "person-card", href: personLink(domain, person) },
    portrait(domain, person, thumbnail),
    h("span", { class: "person-name", title: person }, person),
    h("span", { class: "small muted" }, ngettext("{count} picture", "{count} pictures", faces)),
  );
}

// The small picture of a face, or a mark where none is kept.
export function portrait(domain, person, face) {
  if (face === null) return h("span", { class: "portrait", "aria-hidden": "true" }, icon("person"));
  return h("img", { class: "portrait", src: domainPath(domain, "people", person, "faces", face, "thumbnail"), alt: "", width: "112", height: "112", loading: "lazy" });
}

function nobody(searched, enrol) {
  if (searched) return h("div", { class: "empty" }, icon("search"), h("h2", {}, _("Nobody of that name")), h("p", {}, _("Part of a name is enough; accents and case do not matter.")));
  return h(
    "div",
    { class: "empty" },
    icon("person"),
    h("h2", {}, _("Nobody is enrolled yet")),
    h("p", {}, _("Two or three pictures of a person are enough to be recognised.")),
    may("enrol") && h("div", { class: "row" }, h("button", { class: "button", type: "button", onclick: () => enrol() }, icon("plus"), _("Enrol somebody"))),
  );
}

async function deleteDomain(domain) {
  const name = await asked(_("Delete the domain {domain}?", { domain }), _("Write its name to confirm"), {
    action: _("Delete for good"),
    danger: true,
    hint: _("Everybody in it is deleted from both stores. This cannot be undone."),
    check: (text) => (text === domain ? "" : _("That is not its name.")),
  });
  if (name === null) return;
  try {
    await settle();
    await api(domainPath(domain), { method: "DELETE" });
    forgetDomains();
    toast(_("{name} was deleted.", { name: domain }));
    go("/galleries");
  } catch (error) {
    toast(explain(error));
  }
}
