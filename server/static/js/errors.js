// What went wrong, as a person wants to read it.

import { facts } from "./facts.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { bytes, gettext as _ } from "./i18n.js";

// The sentence for an error of `api.js`. Codes without words of their own are told in the service's.
export function explain(error) {
  switch (error.code) {
    case "unreachable":
      return _("The service does not answer. Check that it runs and that you are connected.");
    case "unauthorized":
      return _("Sign in to do this.");
    case "forbidden":
      return _("Your token does not allow this.");
    case "forbidden_domain":
      return _("Your token does not open this domain.");
    case "rate_limited":
    case "overloaded":
      return _("The service is busy. Wait a moment and try again.");
    case "unknown_domain":
      return _("This domain does not exist (any more).");
    case "unknown_person":
      return _("This person does not exist (any more).");
    case "image_too_large":
      return _("The picture is too large. Up to {size} can be read.", { size: bytes(facts.maxBytes) });
    case "unsupported_format":
      return _("This file is no picture that can be read here. JPEG, PNG, WebP, BMP and TIFF can.");
    case "image_unreadable":
      return _("The picture is damaged or incomplete. Save it again and try once more.");
    case "image_empty":
      return _("The file is empty.");
    case "store_unavailable":
    case "gallery_unusable":
      return _("The galleries cannot be searched at present. Try again in some seconds.");
    case "invalid_name":
      return _("This name cannot be used. Use letters, digits, spaces, dots, hyphens and underscores.");
    case "internal_error":
      return _("Something went wrong in the service. Its log says why.");
    default:
      return error.message || _("Something went wrong. Load the page again.");
  }
}

// Whether the same may succeed if it is tried again; a picture that cannot be read stays one.
export function mayPass(error) {
  return error.status === 0 || error.status === 401 || error.status === 429 || error.status >= 500;
}

// The same as a box; `retry` adds a button.
export function problem(error, retry) {
  return h(
    "div",
    { class: "notice bad", role: "alert" },
    icon("warning"),
    h("div", { class: "stack" }, h("p", {}, explain(error)), retry && h("div", {}, h("button", { class: "button slim", type: "button", onclick: retry }, _("Try again")))),
  );
}
