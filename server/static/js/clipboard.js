// Text with a button that copies it.

import { h } from "./dom.js";
import { gettext as _ } from "./i18n.js";
import { icon } from "./icons.js";
import { toast } from "./toast.js";

export function copyable(text, label, { wrap = false } = {}) {
  const block = h("pre", { class: wrap ? "code wrap" : "code", tabindex: "0", role: "region", "aria-label": label }, h("code", {}, text));
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      toast(_("Copied."));
    } catch {
      getSelection().selectAllChildren(block);
      toast(_("The browser did not allow it; the text is selected, copy it yourself."));
    }
  };
  const button = h("button", { class: "button slim square", type: "button", "aria-label": _("Copy: {what}", { what: label }), onclick: copy }, icon("copy"));
  return h("div", { class: "copyable" }, block, button);
}
