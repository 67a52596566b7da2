// Short messages at the foot of the page, some with an undo.

import { h } from "./dom.js";
import { gettext as _ } from "./i18n.js";

const SHOWN_MS = 6000;
const UNDO_MS = 8000;

let box = null;
const pending = new Set();

function show(...content) {
  box ??= document.body.appendChild(h("div", { class: "toasts", role: "status", "aria-live": "polite" }));
  const toast = h("div", { class: "toast fades" }, ...content);
  box.append(toast);
  return toast;
}

export function toast(text) {
  const shown = show(h("p", {}, text));
  setTimeout(() => shown.remove(), SHOWN_MS);
}

// Does `act` after some seconds, or at once when the page is left; `undo` is called instead when the button is pressed.
// `act` gets `{keepalive}` for its request. What is returned can `finish({keepalive})` before.
export function undoable(text, act, undo) {
  const button = h("button", { class: "button slim", type: "button" }, _("Undo"));
  const shown = show(h("p", {}, text), button);
  const task = {
    finish(options) {
      if (!pending.delete(task)) return undefined;
      clearTimeout(timer);
      shown.remove();
      return act(options);
    },
  };
  const timer = setTimeout(() => task.finish({ keepalive: false }), UNDO_MS);
  pending.add(task);
  button.addEventListener("click", () => {
    if (!pending.delete(task)) return;
    clearTimeout(timer);
    shown.remove();
    undo();
  });
  return task;
}

addEventListener("pagehide", () => pending.forEach((task) => task.finish({ keepalive: true })));
