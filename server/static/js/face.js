// One face: who it is, why, and the nearest people of both stores side by side.

import { h, replace } from "./dom.js";
import { gettext as _, number, percent, pgettext } from "./i18n.js";
import { icon } from "./icons.js";
import { enrolSomebody } from "./newperson.js";
import { nameOf } from "./picture.js";
import { again } from "./queue.js";
import { may } from "./session.js";

const CROP = 96;
const MARGIN = 0.2;
const AROUND = 0.35;

// Fills `panel` with a face of a result.
export function showFace(panel, result, face, img) {
  const { answer, threshold } = result;
  const known = face.person !== null;
  const searched = face.pkl_results.length + face.pgvector_results.length > 0;
  replace(
    panel,
    h(
      "div",
      { class: "face-head" },
      crop(face, answer.image, img),
      h(
        "div",
        {},
        h("h2", {}, nameOf(face)),
        h("p", { class: "muted small" }, said(face, threshold)),
        !known && may("enrol") && h("button", { class: "button slim", type: "button", onclick: () => enrolFace(result, face, img) }, icon("plus"), _("Enrol this face")),
      ),
    ),
    h("div", { class: "row face-badges" }, known ? h("span", { class: "badge good" }, icon("check"), _("recognised")) : h("span", { class: "badge warn" }, _("unknown")), searched && agreement(face)),
    searched && h("div", { class: "stores" }, store("PKL", "first", face.pkl_results, answer.mode !== "pgvector_only", face, threshold), store("pgvector", "second", face.pgvector_results, /^(dual|pgvector_only)$/.test(answer.mode), face, threshold)),
    searched && h("p", { class: "muted small" }, _("Bars show the distance, shorter is more alike. The line marks the threshold {threshold}.", { threshold: number(threshold, 2) })),
  );
}

// Cuts the face out with what is around it, and looks at the picture again once somebody is enrolled.
async function enrolFace(result, face, img) {
  const canvas = h("canvas", {});
  cutOut(canvas, face, result.answer.image, img, AROUND);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (blob) enrolSomebody(result.domain, [new File([blob], "face.png", { type: "image/png" })], (person) => person && again(result));
}

function said(face, threshold) {
  if (face.distance === null) return _("Nobody is enrolled in this domain yet.");
  const values = { distance: number(face.distance, 3), threshold: number(threshold, 2) };
  if (face.person !== null) return _("Distance {distance}, within the threshold {threshold}.", values);
  return _("The nearest face is {distance} away, over the threshold {threshold}.", values);
}

function agreement(face) {
  const { comparison } = face;
  if (comparison === null) return null;
  if (comparison.top1_match && comparison.top5_overlap === 1) return h("span", { class: "badge good" }, icon("check"), _("both stores agree"));
  if (comparison.top1_match) return h("span", { class: "badge warn" }, _("same name, lists {share} alike", { share: percent(comparison.top5_overlap, 0) }));
  return h("span", { class: "badge bad" }, icon("warning"), _("the stores disagree"));
}

function store(name, series, matches, searched, face, threshold) {
  const farthest = Math.max(1, threshold * 1.3, ...[...face.pkl_results, ...face.pgvector_results].map((match) => match.distance));
  const rows = matches.map((match) => row(match, farthest, threshold));
  const none = searched ? pgettext("list of faces", "empty") : pgettext("store", "not searched");
  return h(
    "section",
    { class: `store ${series}`, "aria-label": _("Nearest people in {store}", { store: name }) },
    h("h3", {}, name),
    rows.length ? h("ol", { class: "matches" }, rows) : h("p", { class: "muted small" }, none),
  );
}

function row(match, farthest, threshold) {
  const share = (value) => `${Math.min(100, (100 * value) / farthest)}%`;
  const near = match.distance <= threshold;
  return h(
    "li",
    { class: near ? "match near" : "match", title: match.source },
    h("span", { class: "match-name" }, match.person),
    h("span", { class: "number small" }, number(match.distance, 3)),
    h("span", { class: "bar", "aria-hidden": "true" }, h("span", { class: "bar-fill", style: { width: share(match.distance) } }), h("span", { class: "bar-line", style: { left: share(threshold) } })),
  );
}

// Draws a face into `canvas` with a margin in parts of its size; as large as it is in the picture unless `size` is given.
function cutOut(canvas, face, image, img, margin, size) {
  const side = Math.max(face.box.w, face.box.h) * (1 + 2 * margin);
  const scale = img.naturalWidth / image.width;
  const left = face.box.x + face.box.w / 2 - side / 2;
  const top = face.box.y + face.box.h / 2 - side / 2;
  canvas.width = canvas.height = size ?? Math.round(side * scale);
  canvas.getContext("2d").drawImage(img, left * scale, top * scale, side * scale, side * scale, 0, 0, canvas.width, canvas.height);
}

function crop(face, image, img) {
  const canvas = h("canvas", { class: "crop", role: "img", "aria-label": _("The face, cut out") });
  const draw = () => cutOut(canvas, face, image, img, MARGIN, CROP * 2);
  if (img.complete && img.naturalWidth) draw();
  else img.addEventListener("load", draw, { once: true });
  return canvas;
}
