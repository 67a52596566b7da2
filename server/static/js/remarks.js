// What the service says of a picture, by the code of its remark.

import { explain } from "./errors.js";
import { gettext as _ } from "./i18n.js";

// Refusals that whoever enrols may override.
export const SOFT = new Set(["duplicate", "lookalike", "face_too_small", "face_blurred", "face_turned"]);

// The sentence for a remark: `{code, message, person}`.
export function sentence(remark) {
  switch (remark.code) {
    case "no_face":
      return _("No face was found. Take a picture in which the face is well visible.");
    case "several_faces":
      return _("There are several faces. Take a picture that shows this person only.");
    case "face_too_small":
      return _("The face is very small. A larger one is recognised more surely.");
    case "face_blurred":
      return _("The face is blurred. A sharp picture is recognised more surely.");
    case "face_turned":
      return _("The face is turned or tilted. One that looks into the camera is recognised more surely.");
    case "duplicate":
      return _("This picture is enrolled already.");
    case "lookalike":
      return _("The face looks like {person}. Check the name.", { person: remark.person });
    case "also_like":
      return _("The face also looks like {person}.", { person: remark.person });
    case "unlike":
      return _("The face does not look like this person's other pictures.");
    default:
      return explain(remark);
  }
}
