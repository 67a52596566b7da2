// The first view: pictures in, names out.

import { currentDomain, domainChooser } from "./domains.js";
import { cameraButton, pickButton, receiveFiles } from "./capture.js";
import { h, replace } from "./dom.js";
import { mayPass, problem } from "./errors.js";
import { showFace } from "./face.js";
import { facts } from "./facts.js";
import { gettext as _, listed, ngettext } from "./i18n.js";
import { icon } from "./icons.js";
import { leftToRight, nameOf, picture } from "./picture.js";
import { again, analyse, clearResults, onResult, progress, results } from "./queue.js";
import { sameRequest, timings } from "./request.js";
import { refresh, setQuery } from "./router.js";
import { askForToken, may } from "./session.js";
import { toast } from "./toast.js";

let chosen = null;

export const analyseView = { title: () => _("Analyse"), render };

function render(root) {
  const take = (files) => {
    if (!may("analyze")) return askForToken();
    chosen = analyse(files, currentDomain());
    draw();
    return undefined;
  };
  const live = h("p", { class: "hidden-text", role: "status" });
  const body = h("div", {});
  const zone = h("div", { class: "zone" }, live, body);
  root.append(zone);

  const draw = () => replace(body, results.length ? workbench(take, draw) : welcome(take));
  const changed = (result) => {
    if (result.state === "done") live.textContent = `${result.name}: ${result.answer.description}`;
    draw();
  };
  draw();
  const ends = [onResult(changed), receiveFiles(zone, take)];
  return () => ends.forEach((end) => end());
}

function domainField() {
  return domainChooser((name) => setQuery({ domain: name }));
}

function demoButton(take) {
  if (!facts.demo) return null;
  const fetchDemo = async () => {
    const answer = await fetch("/demo.jpg").catch(() => null);
    if (!answer?.ok) return toast(_("The demo picture could not be loaded."));
    return take([new File([await answer.blob()], "demo.jpg", { type: "image/jpeg" })]);
  };
  return h("button", { class: "button", type: "button", onclick: fetchDemo }, icon("sparkle"), _("Try the demo picture"));
}

function welcome(take) {
  return h(
    "div",
    { class: "welcome fades" },
    h("div", { class: "welcome-text" }, h("h1", {}, _("Who is in this picture?")), h("p", { class: "muted" }, _("Hand in a picture, and every face in it is compared with the people you have enrolled. Nothing leaves this server, and the page forgets the picture when you close it."))),
    h(
      "div",
      { class: "drop" },
      h("div", { class: "drop-mark", "aria-hidden": "true" }, icon("analyse")),
      h("p", { class: "drop-title" }, _("Drop pictures here, or paste one")),
      h("div", { class: "row" }, pickButton(_("Choose pictures"), take, { primary: true }), cameraButton(take), demoButton(take)),
      h("div", { class: "drop-domain" }, domainField()),
    ),
  );
}

function workbench(take, draw) {
  if (!results.includes(chosen)) chosen = results.at(-1);
  const clear = () => {
    clearResults();
    chosen = null;
    refresh();
  };
  return h(
    "div",
    { class: "stack" },
    h("h1", { class: "hidden-text" }, _("Who is in this picture?")),
    h("div", { class: "bench-bar" }, domainField(), h("div", { class: "row" }, pickButton(_("Choose pictures"), take, { primary: true }), cameraButton(take, { narrow: true }), h("button", { class: "button quiet", type: "button", onclick: clear }, icon("trash"), h("span", { class: "narrow-hidden" }, _("Clear"))))),
    strip(draw),
    shownResult(chosen),
  );
}

function strip(draw) {
  if (results.length < 2) return null;
  const { done, total } = progress();
  const items = results.map((result) => {
    const choose = () => {
      chosen = result;
      draw();
    };
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: `strip-item ${result.state}`, "aria-pressed": String(result === chosen), "aria-label": `${result.name}: ${stateOf(result)}`, onclick: choose },
        h("img", { src: result.url, alt: "", onerror: (event) => (event.target.hidden = true) }),
        result.state === "failed" ? h("span", { class: "strip-state bad" }, icon("warning")) : null,
        result.state === "working" || result.state === "waiting" ? h("span", { class: "strip-state" }, h("span", { class: "spinner" })) : null,
      ),
    );
  });
  const text = ngettext("{done} of {count} picture is done", "{done} of {count} pictures are done", total, { done });
  return h("div", { class: "strip-box" }, done < total && h("div", { class: "strip-progress" }, h("progress", { max: String(total), value: done, "aria-label": text }), h("span", { class: "small muted" }, text)), h("ul", { class: "strip", "aria-label": _("Pictures") }, items));
}

function stateOf(result) {
  if (result.state === "failed") return _("not read");
  if (result.state !== "done") return _("under way");
  const names = result.answer.recognized_faces;
  return names.length ? listed(names) : _("nobody recognised");
}

function shownResult(result) {
  if (result.state === "failed") {
    return h("div", { class: "card stack" }, h("h2", {}, result.name), problem(result.error, mayPass(result.error) && (() => again(result))));
  }
  if (result.state !== "done") {
    return h("div", { class: "card waiting" }, h("img", { src: result.url, alt: "" }), h("div", { class: "row" }, h("span", { class: "spinner" }), h("p", {}, _("Looking for faces …"))));
  }
  return finished(result);
}

function finished(result) {
  const panel = h("section", { class: "card stack face-panel", "aria-label": _("The chosen face") });
  const choose = (face) => {
    stage.mark(face);
    chips.querySelectorAll("button").forEach((chip) => chip.setAttribute("aria-pressed", String(chip.face === face)));
    showFace(panel, result, face, stage.querySelector("img"));
  };
  // Where the panel lies below the picture, a press brings it into sight.
  const press = (face) => {
    choose(face);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (panel.getBoundingClientRect().top > innerHeight * 0.7) panel.scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
  };
  const stage = picture(result, choose, press);
  const faces = leftToRight(result.answer.faces);
  const chips = h("ul", { class: "chips", "aria-label": _("People in the picture, from left to right") }, faces.map((face) => h("li", {}, chip(face, press))));
  if (faces.length) choose(faces.find((face) => face.person !== null) ?? faces[0]);
  else replace(panel, nobody());
  return h(
    "div",
    { class: "bench" },
    h(
      "div",
      { class: "stack" },
      h("figure", { class: "card stage" }, h("div", { class: "stage-ground" }, stage), h("figcaption", { lang: result.language }, result.answer.description), faces.length > 1 && chips),
      degraded(result.answer.mode),
    ),
    h("div", { class: "stack" }, panel, h("div", { class: "card stack" }, timings(result), sameRequest(result))),
  );
}

function degraded(mode) {
  const said = {
    "pkl_only (pgvector failed)": _("pgvector did not answer. The names come from the PKL gallery alone."),
    "pgvector_only (pkl failed)": _("The PKL gallery could not be read. The names come from pgvector alone."),
  }[mode];
  return said && h("div", { class: "notice warn" }, icon("warning"), h("p", {}, said));
}

function chip(face, choose) {
  const button = h("button", { type: "button", class: face.person === null ? "chip unknown" : "chip", "aria-pressed": "false", onclick: () => choose(face) }, nameOf(face));
  button.face = face;
  return button;
}

function nobody() {
  return h("div", { class: "empty" }, icon("person"), h("h2", {}, _("No face was found")), h("p", {}, _("Faces that are very small, turned away or covered are not found. Try a larger or brighter picture.")));
}
