// A person of a domain: the enrolled faces, more pictures, another name, two people made one.

import { api, domainPath } from "./api.js";
import { cameraButton, pickButton, receiveFiles } from "./capture.js";
import { crumbs, domainLink, personLink } from "./crumbs.js";
import { asked, confirmed } from "./dialogs.js";
import { h, replace } from "./dom.js";
import { enrolment } from "./enrol.js";
import { explain, problem } from "./errors.js";
import { portrait } from "./gallery.js";
import { deleteLater, isGoing, onGone, settle } from "./gone.js";
import { gettext as _, ngettext } from "./i18n.js";
import { icon } from "./icons.js";
import { looking } from "./looking.js";
import { chosenPerson } from "./merging.js";
import { go } from "./router.js";
import { may } from "./session.js";
import { toast } from "./toast.js";

// What the service calls a picture that did not come from a folder.
const ENROLLED = /^enrolled-[0-9a-f]{16}(-[0-9]+)?\.jpg$/;

export function personView(root, domain, person) {
  const ends = new AbortController();
  const path = domainPath(domain, "people", person);
  const count = h("p", { role: "status" });
  const faces = h("div", {}, looking());
  const pictures = enrolment(domain, () => pictures.counts().working === 0 && load());

  const load = async () => {
    try {
      const answer = await api(path, { signal: ends.signal });
      const kept = answer.faces.filter((face) => !isGoing(facePath(path, face)));
      count.textContent = ngettext("{count} picture", "{count} pictures", kept.length);
      replace(faces, h("ul", { class: "faces" }, kept.map((face) => h("li", {}, faceCard(domain, person, path, face, answer.unavailable)))));
    } catch (error) {
      if (error.name !== "AbortError") replace(faces, problem(error, load));
    }
  };
  const take = async (files) => {
    await settle();
    pictures.add(files);
  };
  const remove = () => {
    deleteLater(path, _("{name} is deleted with all pictures.", { name: person }));
    go(domainLink(domain));
  };

  const zone = h("section", { class: "card stack zone", "aria-label": _("Pictures") }, pictures.element, faces);
  root.append(
    crumbs(domain),
    h(
      "div",
      { class: "page-head" },
      h("div", {}, h("h1", {}, person), count),
      may("enrol") &&
        h(
          "div",
          { class: "row" },
          pickButton(_("Add pictures"), take, { primary: true }),
          cameraButton(take, { narrow: true }),
          h("button", { class: "button", type: "button", onclick: () => rename(domain, person) }, icon("pencil"), _("Rename")),
          h("button", { class: "button", type: "button", onclick: () => merge(domain, person) }, icon("merge"), _("Merge")),
          h("button", { class: "button quiet", type: "button", onclick: remove }, icon("trash"), h("span", { class: "narrow-hidden" }, _("Delete"))),
        ),
    ),
    zone,
  );
  pictures.start(person);
  load();
  const stops = [onGone(load), may("enrol") && receiveFiles(zone, take), pictures.end].filter(Boolean);
  return () => {
    ends.abort();
    stops.forEach((stop) => stop());
  };
}

function facePath(path, face) {
  return `${path}/faces/${face.id}`;
}

function faceCard(domain, person, path, face, unavailable) {
  const file = face.source.split("/").at(-1);
  const name = ENROLLED.test(file) ? _("enrolled") : file;
  const remove = () => deleteLater(facePath(path, face), _("The picture {file} is deleted.", { file }));
  const [only] = face.stores;
  return h(
    "figure",
    { class: "face-card" },
    portrait(domain, person, face.thumbnail ? face.id : null),
    h("figcaption", { class: "small" }, h("span", { class: "face-file", title: face.source }, name), face.stores.length === 1 && unavailable.length === 0 && h("span", { class: "badge warn" }, only === "pkl" ? _("only in PKL") : _("only in pgvector"))),
    may("enrol") && h("button", { class: "button slim square", type: "button", "aria-label": _("Delete the picture {file}", { file }), onclick: remove }, icon("trash")),
  );
}

async function rename(domain, person) {
  const name = await asked(_("Rename {name}", { name: person }), _("New name"), { value: person, action: _("Rename"), hint: _("Pictures in a folder that is synchronised have to be moved as well, or the next synchronisation brings the old name back.") });
  if (name === null || name === person) return;
  try {
    await moved(domain, person, name, false);
  } catch (error) {
    if (error.code !== "person_exists") return toast(explain(error));
    await mergeInto(domain, person, name);
  }
  return undefined;
}

async function merge(domain, person) {
  const other = await chosenPerson(domain, person);
  if (other !== null) await mergeInto(domain, person, other);
}

async function mergeInto(domain, person, other) {
  const text = _("All pictures of {person} go to {other}. They cannot be told apart again afterwards.", { person, other });
  if (!(await confirmed(_("Make one person of the two?"), text, _("Merge"), { danger: true }))) return;
  await moved(domain, person, other, true).catch((error) => toast(explain(error)));
}

async function moved(domain, person, name, merge) {
  await settle();
  const answer = await api(domainPath(domain, "people", person), { method: "PATCH", json: { person: name, merge } });
  toast(merge ? _("{person} and {other} are one person now.", { person, other: answer.person }) : _("{person} is called {name} now.", { person, name: answer.person }));
  go(personLink(domain, answer.person));
}
