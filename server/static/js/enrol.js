// Pictures of a person, handed in one by one: each has its own verdict.

import { api, ApiError, domainPath } from "./api.js";
import { h, replace } from "./dom.js";
import { explain } from "./errors.js";
import { facts } from "./facts.js";
import { gettext as _ } from "./i18n.js";
import { icon } from "./icons.js";
import { sentence, SOFT } from "./remarks.js";

// A list of pictures and what became of them. `changed()` is called after each. What is returned has `element`,
// `add(files)`, `start(person)`, which enrols all that wait, `counts()`, and `end()`, which lets go of the pictures.
export function enrolment(domain, changed) {
  const list = h("ul", { class: "verdicts", "aria-label": _("Pictures"), "aria-live": "polite", hidden: true });
  const pictures = [];
  let person = null;
  let working = false;
  let ended = false;

  const show = (picture) => {
    replace(picture.row, ...verdict(picture, () => overrule(picture)));
    changed();
  };
  const overrule = (picture) => {
    picture.allow.add(picture.remark.code);
    picture.state = "waiting";
    show(picture);
    work();
  };
  const work = async () => {
    if (working || person === null) return;
    working = true;
    for (let next = waiting(); next && !ended; next = waiting()) {
      next.state = "working";
      show(next);
      await hand(domain, person, next);
      show(next);
    }
    working = false;
    changed();
  };
  const waiting = () => pictures.find((picture) => picture.state === "waiting");

  return {
    element: list,
    add(files) {
      for (const file of files) {
        const picture = { file, name: file.name || "picture.png", url: URL.createObjectURL(file), state: "waiting", allow: new Set(), remark: null, warnings: [], row: h("li", { class: "verdict" }) };
        pictures.push(picture);
        list.append(picture.row);
        show(picture);
      }
      list.hidden = pictures.length === 0;
      work();
    },
    start(name) {
      person = name;
      work();
    },
    counts() {
      const count = (state) => pictures.filter((picture) => picture.state === state).length;
      return { waiting: count("waiting"), working: count("working"), enrolled: count("enrolled"), refused: count("refused") };
    },
    end() {
      ended = true;
      pictures.forEach((picture) => URL.revokeObjectURL(picture.url));
    },
  };
}

async function hand(domain, person, picture) {
  const query = picture.allow.size ? `?allow=${[...picture.allow].join(",")}` : "";
  try {
    if (picture.file.size > facts.maxBytes) throw new ApiError(413, "image_too_large", "");
    const form = new FormData();
    form.append("images", picture.file, picture.name);
    const answer = await api(domainPath(domain, "people", person) + query, { method: "POST", form });
    picture.warnings = answer.enrolled[0].warnings;
    picture.state = "enrolled";
  } catch (error) {
    picture.remark = error.detail?.refused?.[0] ?? { code: error.code, message: explain(error) };
    picture.state = "refused";
  }
}

function verdict(picture, overrule) {
  const img = h("img", { src: picture.url, alt: "" });
  img.addEventListener("error", () => img.replaceWith(h("span", { class: "verdict-unseen", "aria-hidden": "true" }, icon("docs"))));
  const soft = picture.state === "refused" && SOFT.has(picture.remark.code);
  return [
    img,
    h(
      "div",
      { class: "verdict-text" },
      h("div", { class: "verdict-head" }, h("p", { class: "verdict-name" }, picture.name), mark(picture)),
      said(picture),
      soft && h("button", { class: "button slim", type: "button", onclick: overrule }, _("Enrol anyway")),
    ),
  ];
}

function said(picture) {
  if (picture.state === "refused") return h("p", { class: "small" }, sentence(picture.remark));
  return picture.warnings.map((warning) => h("p", { class: "small muted" }, sentence(warning)));
}

function mark(picture) {
  switch (picture.state) {
    case "waiting":
      return h("span", { class: "badge" }, _("waiting"));
    case "working":
      return h("span", { class: "row" }, h("span", { class: "spinner" }), h("span", { class: "hidden-text" }, _("under way")));
    case "enrolled":
      return h("span", { class: "badge good" }, icon("check"), _("enrolled"));
    default:
      return h("span", { class: "badge bad" }, icon("cross"), _("refused"));
  }
}
