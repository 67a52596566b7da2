// How a domain is filled: from a folder of the server, or from a gallery that DeepFace wrote.

import { api, ApiError, domainPath } from "./api.js";
import { confirmed } from "./dialogs.js";
import { h, replace } from "./dom.js";
import { explain } from "./errors.js";
import { settle } from "./gone.js";
import { gettext as _, listed, ngettext, number, pgettext } from "./i18n.js";
import { icon } from "./icons.js";
import { follow, forgetJob, jobOf, onJob } from "./jobs.js";
import { toast } from "./toast.js";

const GALLERIES = ".pkl,.npz,.parquet,.feather";

// `changed()` is called when the domain holds something else; `signal` ends the card.
export function fillingCard(domain, changed, signal) {
  const body = h("div", { class: "stack" });
  const input = h("input", { type: "file", accept: GALLERIES, hidden: true, tabindex: "-1", "aria-hidden": "true" });
  const start = async (address, form) => {
    try {
      await settle();
      const answer = await api(address, { method: "POST", form });
      follow(answer.job);
    } catch (error) {
      if (error.code !== "gallery_mismatch" || !error.detail.differs) toast(refusal(error));
      else if (await confirmed(_("Import it all the same?"), differing(error.detail.differs), _("Import all the same"))) await start(`${address}?${new URLSearchParams(error.detail.differs.map((part) => ["accept", part]))}`, form);
    }
  };
  const sync = async () => {
    const text = _("The domain becomes like the folder of its name in the server's IMAGES_DIR: new pictures are added, and those that are gone there are taken out. Pictures enrolled here stay.");
    if (await confirmed(_("Synchronise with the folder?"), text, _("Synchronise"))) await start(domainPath(domain, "sync"));
  };
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    const form = new FormData();
    form.append("gallery", file, file.name);
    start(domainPath(domain, "import"), form);
  });
  const draw = () => {
    const job = jobOf(domain);
    const running = job?.state === "running";
    replace(
      body,
      h(
        "div",
        { class: "row" },
        h("button", { class: "button", type: "button", disabled: running, onclick: sync }, icon("sync"), _("Synchronise with the folder")),
        h("button", { class: "button", type: "button", disabled: running, onclick: () => input.click() }, icon("upload"), _("Import a gallery")),
      ),
      h("p", { class: "small muted" }, _("A folder of the server with one folder of pictures per person, or a gallery that DeepFace wrote: .pkl, .npz, .parquet or .feather.")),
      job && course(job, () => forgetJob(domain)),
    );
  };
  draw();
  const stop = onJob((which) => {
    if (which !== domain) return;
    draw();
    if (jobOf(domain)?.state === "done") changed();
  });
  signal.addEventListener("abort", stop);
  return h("section", { class: "card" }, h("h2", {}, _("Fill the domain")), body, input);
}

function differing(parts) {
  const words = { detector: _("another detector"), alignment: _("another alignment"), normalisation: _("another normalisation"), expansion: _("another expansion of the faces"), model: _("another model") };
  const what = listed(parts.map((part) => words[part] ?? part));
  return _("The gallery was written with {what} than this service works with. Its people may be recognised less surely, or not at all.", { what });
}

function refusal(error) {
  switch (error.code) {
    case "job_running":
      return _("Other work on this domain is under way. Wait until it is done.");
    case "no_images_dir":
      return _("The server has no folder of pictures. Whoever runs it can set IMAGES_DIR.");
    case "folder_unusable":
      return _("The server's folder of pictures holds no folder of this domain's name.");
    case "gallery_too_large":
      return _("The gallery is too large to be sent. Import it on the server: python -m matchers import.");
    case "gallery_unreadable":
    case "unknown_format":
      return _("This file is no gallery that can be read here.");
    case "gallery_mismatch":
      return _("The gallery was written with another model. Its embeddings cannot be compared with this one's.");
    default:
      return explain(error);
  }
}

function course(job, forget) {
  if (job.state === "running") return progress(job);
  const close = h("button", { class: "button slim", type: "button", onclick: forget }, _("Close"));
  if (job.state === "failed") {
    const error = new ApiError(0, job.error.code, job.error.message);
    return h("div", { class: "notice bad", role: "alert" }, icon("warning"), h("div", { class: "stack" }, h("p", {}, refusal(error)), h("div", {}, close)));
  }
  return h("div", { class: "notice good", role: "status" }, icon("check"), h("div", { class: "stack" }, outcome(job.report), h("div", {}, close)));
}

function progress({ kind, done, total }) {
  const label = kind === "sync" ? _("Synchronising …") : _("Importing …");
  const bar = h("progress", { max: total || null, value: total ? done : null, "aria-label": label });
  return h(
    "div",
    { class: "stack course" },
    h("div", { class: "spread" }, h("span", {}, label), total > 0 && h("span", { class: "number muted" }, `${number(done)} / ${number(total)}`)),
    bar,
  );
}

function outcome(report) {
  const warnings = report.warnings ?? [];
  const counts = [
    [pgettext("pictures", "added"), report.added],
    [pgettext("pictures", "changed"), report.updated],
    [pgettext("pictures", "taken out"), report.removed],
    [pgettext("pictures", "unchanged"), report.unchanged],
  ].filter(([, count]) => count !== undefined);
  const skipped = report.skipped ?? [];
  return [
    h("strong", {}, report.complete === false ? _("Done, as far as possible") : _("Done")),
    h("dl", { class: "tally" }, counts.map(([name, count]) => h("div", {}, h("dt", {}, name), h("dd", { class: "number" }, number(count))))),
    warnings.map((text) => h("p", { class: "small", lang: "en" }, text)),
    skipped.length > 0 &&
      h(
        "details",
        { class: "fold" },
        h("summary", {}, ngettext("{count} picture was left out", "{count} pictures were left out", skipped.length)),
        h("ul", { class: "left-out small", lang: "en" }, skipped.map((one) => h("li", {}, h("code", {}, one.source), ` ${one.reason}`))),
      ),
  ];
}
