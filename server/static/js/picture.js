// A picture with its faces marked. Every face is a button, so that keyboards and screen readers reach it.

import { h } from "./dom.js";
import { gettext as _, number } from "./i18n.js";

// `choose(face)` is called when a face is pointed at or focused, `press(face)` when it is pressed.
export function picture(result, choose, press) {
  const { width, height } = result.answer.image;
  const img = h("img", { src: result.url, alt: result.answer.description, width, height });
  const missing = h("p", { class: "picture-missing", hidden: true }, _("This browser cannot show the file; the faces are marked where they are."));
  img.addEventListener("error", () => {
    img.hidden = true;
    missing.hidden = false;
  });
  const buttons = leftToRight(result.answer.faces).map((face) => faceButton(face, width, height, choose, press));
  const frame = h("div", { class: "picture", style: { "--ratio": `${width} / ${height}`, "--width": `${width}px` } }, img, missing, buttons);
  frame.mark = (face) => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.face === face)));
  return frame;
}

export function leftToRight(faces) {
  return [...faces].sort((one, other) => one.box.x + one.box.w / 2 - (other.box.x + other.box.w / 2));
}

export function nameOf(face) {
  return face.person ?? _("Unknown person");
}

function faceButton(face, width, height, choose, press) {
  const { x, y, w, h: tall } = face.box;
  const share = (value, whole) => `${(100 * value) / whole}%`;
  const label =
    face.distance === null ? nameOf(face) : _("{name}, distance {distance}", { name: nameOf(face), distance: number(face.distance, 2) });
  const button = h(
    "button",
    {
      type: "button",
      class: face.person === null ? "face unknown" : "face",
      "aria-label": label,
      "aria-pressed": "false",
      style: { left: share(x, width), top: share(y, height), width: share(w, width), height: share(tall, height) },
    },
    h("span", { class: x + w / 2 > width * 0.85 ? "face-name at-right" : "face-name" }, face.person ?? "?"),
  );
  button.face = face;
  for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => choose(face));
  button.addEventListener("click", () => press(face));
  return button;
}
