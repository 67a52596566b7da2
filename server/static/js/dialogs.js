// Modal dialogs.

import { freshId, h } from "./dom.js";
import { gettext as _ } from "./i18n.js";

// A modal dialog with `content`; it leaves the document when it closes. Returns the element.
export function openDialog(title, content, { wide = false, onclose } = {}) {
  const id = freshId("dialog");
  const dialog = h(
    "dialog",
    { class: wide ? "wide" : "", "aria-labelledby": id },
    h("div", { class: "dialog-body" }, h("h2", { id }, title), content),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    onclose?.(dialog.returnValue);
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// Whether the person goes on.
export function confirmed(title, text, action, { danger = false } = {}) {
  return new Promise((resolve) => {
    const form = h(
      "form",
      { method: "dialog", class: "stack" },
      h("p", {}, text),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { class: "button", value: "" }, _("Cancel")),
        h("button", { class: danger ? "button danger" : "button primary", value: "go" }, action),
      ),
    );
    openDialog(title, form, { onclose: (value) => resolve(value === "go") });
  });
}

// A text that the person writes; null when they do not. `check` returns what is wrong with it, or "".
export function asked(title, label, { value = "", action, hint = "", check = () => "", danger = false } = {}) {
  return new Promise((resolve) => {
    const id = freshId("input");
    const input = h("input", { class: "input", id, value, maxlength: "128", required: true, autocomplete: "off", "aria-describedby": `${id}-hint` });
    const said = h("p", { id: `${id}-hint`, class: "small muted", "aria-live": "polite" }, hint);
    const form = h(
      "form",
      { class: "stack" },
      h("div", { class: "field" }, h("label", { for: id }, label), input, said),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { class: "button", type: "button", onclick: () => dialog.close() }, _("Cancel")),
        h("button", { class: danger ? "button danger" : "button primary" }, action),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const wrong = check(input.value.trim());
      said.textContent = wrong || hint;
      input.setAttribute("aria-invalid", String(wrong !== ""));
      if (!wrong && input.value.trim()) dialog.close(input.value.trim());
    });
    const dialog = openDialog(title, form, { onclose: (text) => resolve(text || null) });
    input.select();
  });
}
