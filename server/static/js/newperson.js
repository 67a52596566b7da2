// The dialog that enrols somebody: a name, and pictures.

import { cameraButton, pickButton, receiveFiles } from "./capture.js";
import { openDialog } from "./dialogs.js";
import { freshId, h } from "./dom.js";
import { enrolment } from "./enrol.js";
import { settle } from "./gone.js";
import { gettext as _ } from "./i18n.js";

// `files`: pictures that are there already. `closed(person)` is called at the end with who was enrolled, or null.
export function enrolSomebody(domain, files, closed) {
  const id = freshId("person");
  const name = h("input", { class: "input", id, maxlength: "128", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-hint` });
  const hint = h("p", { id: `${id}-hint`, class: "small muted" }, _("Pictures of somebody who is enrolled already are added to theirs."));
  const enrolButton = h("button", { class: "button primary" }, _("Enrol"));
  const endButton = h("button", { class: "button", type: "button", onclick: () => dialog.close() }, _("Cancel"));
  let person = null;

  const changed = () => {
    const { waiting, working, enrolled } = pictures.counts();
    enrolButton.disabled = waiting === 0 || working > 0;
    endButton.textContent = enrolled ? _("Done") : _("Cancel");
    if (person !== null) enrolButton.hidden = true;
    endButton.classList.toggle("primary", person !== null && enrolled > 0);
  };
  const pictures = enrolment(domain, () => changed());
  const drop = h(
    "div",
    { class: "drop small-drop zone" },
    h("p", { class: "drop-title" }, _("Drop pictures of this person here, or paste one")),
    h("div", { class: "row" }, pickButton(_("Choose pictures"), pictures.add), cameraButton(pictures.add)),
    h("p", { class: "small muted" }, _("One face in each picture; two or three pictures from different days are best.")),
  );
  const form = h(
    "form",
    { class: "stack" },
    h("div", { class: "field" }, h("label", { for: id }, _("Name")), name, hint),
    drop,
    pictures.element,
    h("div", { class: "dialog-actions" }, endButton, enrolButton),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!name.value.trim()) return name.focus();
    person = name.value.trim();
    name.readOnly = true;
    await settle();
    return pictures.start(person);
  });
  const dialog = openDialog(_("Enrol somebody"), form, {
    wide: true,
    onclose: () => {
      stopReceiving();
      pictures.end();
      closed(pictures.counts().enrolled ? person : null);
    },
  });
  const stopReceiving = receiveFiles(form, pictures.add);
  pictures.add(files);
  changed();
  name.focus();
}
