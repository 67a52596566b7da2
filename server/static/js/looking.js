// What stands where something is still being asked for.

import { h } from "./dom.js";
import { gettext as _ } from "./i18n.js";

export function looking(text = _("Looking …")) {
  return h("div", { class: "row looking" }, h("span", { class: "spinner" }), text);
}
