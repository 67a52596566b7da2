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

// Does `act` after some seconds, or at once when the page is left; `undo` is called instead when the button or Ctrl+Z is
// pressed. The seconds begin anew when the pointer or the focus leaves the message. `act` gets `{keepalive}` for its
// request. What is returned can `finish({keepalive})` before, and `revoke()`.
export function undoable(text, act, undo) {
  const button = h("button", { class: "button slim", type: "button", title: `${_("Undo")} (Ctrl+Z)`, "aria-keyshortcuts": "Control+Z Meta+Z", onclick: () => task.revoke() }, _("Undo"));
  const shown = show(h("p", {}, text), button);
  let timer = null;
  const wait = () => {
    clearTimeout(timer);
    if (pending.has(task)) timer = setTimeout(() => task.finish({ keepalive: false }), UNDO_MS);
  };
  const end = () => {
    const waited = pending.delete(task);
    clearTimeout(timer);
    shown.remove();
    return waited;
  };
  const task = {
    finish: (options) => (end() ? act(options) : undefined),
    revoke: () => end() && undo(),
  };
  for (const event of ["mouseenter", "focusin"]) shown.addEventListener(event, () => clearTimeout(timer));
  for (const event of ["mouseleave", "focusout"]) shown.addEventListener(event, wait);
  pending.add(task);
  wait();
  return task;
}

addEventListener("keydown", (event) => {
  const asked = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
  if (!asked || event.target.closest?.("input, textarea, dialog")) return;
  const last = [...pending].at(-1);
  if (!last) return;
  event.preventDefault();
  last.revoke();
});

addEventListener("pagehide", () => pending.forEach((task) => task.finish({ keepalive: true })));
