// The frame around every view: brand, tabs, language, sign-in.

import { agreementView } from "./agreement.js";
import { analyseView } from "./analyse.js";
import { docsView } from "./docs.js";
import { forgetDomains } from "./domains.js";
import { h, replace } from "./dom.js";
import { explain, problem } from "./errors.js";
import { facts } from "./facts.js";
import { galleriesView } from "./galleries.js";
import { changeLanguage, gettext as _, languageCode, loadMessages } from "./i18n.js";
import { icon } from "./icons.js";
import { refresh, startRouter } from "./router.js";
import { askForToken, may, signedIn, signOut, startSession } from "./session.js";
import { statusView } from "./status.js";
import { toast } from "./toast.js";

const VIEWS = { "/": analyseView, "/galleries": galleriesView, "/agreement": agreementView, "/status": statusView, "/docs": docsView };

const tabs = [
  { path: "/", icon: "analyse", label: () => _("Analyse") },
  { path: "/galleries", icon: "people", label: () => _("Galleries") },
  { path: "/agreement", icon: "merge", label: () => _("Agreement"), right: "admin" },
  { path: "/status", icon: "status", label: () => _("Status"), right: "admin" },
  { path: "/docs", icon: "docs", label: () => _("API") },
];

const skip = h("a", { class: "skip", href: "#content" });
const header = h("header", { class: "top" });
const content = h("main", { id: "content", tabindex: "-1" });

function frame() {
  skip.textContent = _("Skip to the content");
  const domain = new URLSearchParams(location.search).get("domain");
  const query = domain ? `?domain=${encodeURIComponent(domain)}` : "";
  const links = tabs
    .filter((tab) => !tab.right || may(tab.right) || !facts.guarded)
    .map((tab) => {
      const current = tab.path === location.pathname ? "page" : null;
      return h("a", { href: tab.path + (tab.path === "/docs" || tab.path === "/status" ? "" : query), "aria-current": current }, icon(tab.icon), h("span", {}, tab.label()));
    });
  replace(
    header,
    h(
      "div",
      { class: "top-inner" },
      h("a", { class: "brand", href: `/${query}` }, h("img", { src: document.querySelector('link[rel="icon"]').href, alt: "", width: "30", height: "30" }), h("span", {}, "Face service")),
      h("nav", { class: "tabs", "aria-label": _("Parts of the service") }, links),
      h("div", { class: "tools" }, languageChooser(), signInButton()),
    ),
  );
}

function languageChooser() {
  const options = facts.languages.map((known) =>
    h("option", { value: known.code, lang: known.tag, selected: known.code === languageCode() }, known.name),
  );
  const select = h("select", { "aria-label": _("Language") }, options);
  select.addEventListener("change", async () => {
    try {
      await changeLanguage(select.value);
    } catch {
      toast(explain({ code: "unreachable" }));
      return;
    }
    refresh();
    header.querySelector(".tools select").focus();
  });
  return select;
}

function signInButton() {
  if (!facts.guarded) return null;
  const caller = signedIn();
  if (caller === null) {
    return h("button", { class: "button slim primary", type: "button", onclick: askForToken }, icon("key"), _("Sign in"));
  }
  const leave = () => signOut().catch((error) => toast(explain(error)));
  return h("button", { class: "button slim", type: "button", onclick: leave, title: _("Signed in as {name}", { name: caller.name }) }, icon("leave"), _("Sign out"));
}

async function start() {
  document.body.append(skip, header, content);
  try {
    await loadMessages();
    await startSession(() => {
      forgetDomains();
      refresh();
    });
  } catch (error) {
    frame();
    replace(content, problem(error, () => location.reload()));
    return;
  }
  startRouter(VIEWS, content, frame);
}

start();
