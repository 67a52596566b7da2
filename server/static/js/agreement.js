// The third view: how far both stores of a domain agree, and the step from one to the other. Live.

import { api, domainPath } from "./api.js";
import { chart } from "./charts.js";
import { disagreementTable, failureTable, historyTable, reason } from "./disagreements.js";
import { currentDomain, domainChooser } from "./domains.js";
import { freshId, h, replace } from "./dom.js";
import { problem } from "./errors.js";
import { gateList } from "./gates.js";
import { clock, gettext as _, milliseconds, number, percent } from "./i18n.js";
import { icon } from "./icons.js";
import { looking } from "./looking.js";
import { modeCard } from "./mode.js";
import { refresh, setQuery } from "./router.js";
import { may } from "./session.js";
import { closed } from "./status.js";

const EVERY_MS = 3000;
const LISTED = 50;

export const agreementView = { title: () => _("Agreement"), render };

function render(root) {
  const head = h("div", {}, h("h1", {}, _("Agreement")), h("p", {}, _("Whether PKL and pgvector give the same answers, before pgvector answers alone.")));
  if (!may("admin")) return void root.append(h("div", { class: "page-head" }, head), closed());
  const domain = currentDomain();
  const ends = new AbortController();
  const stamp = h("p", { class: "small muted live" });
  const body = h("div", { class: "stack" }, looking());
  const choose = (name) => {
    setQuery({ domain: name });
    refresh();
  };
  const period = periodChooser(() => load());
  root.append(h("div", { class: "page-head" }, head, domainChooser(choose), period.element), stamp, body);

  let board = null;
  let timer = null;
  const load = async () => {
    clearTimeout(timer);
    try {
      const query = new URLSearchParams({ limit: LISTED, ...(period.value ? { since: period.value } : {}) });
      const ask = (part) => api(`${domainPath(domain)}/${part}`, { signal: ends.signal });
      const [report, mode, history] = await Promise.all([ask(`comparisons?${query}`), ask("mode"), ask("mode/history")]);
      if (board === null) {
        board = dashboard(domain, load);
        replace(body, board.element);
      }
      board.show(report, mode, history.changes);
      stamp.textContent = _("Live, as of {moment}", { moment: clock(Date.now()) });
      timer = setTimeout(poll, EVERY_MS);
    } catch (error) {
      if (error.name === "AbortError") return;
      board = null;
      stamp.textContent = "";
      replace(body, error.code === "pgvector_off" ? single() : problem(error, load));
    }
  };
  const poll = () => (document.hidden ? (timer = setTimeout(poll, EVERY_MS)) : load());
  load();
  return () => {
    clearTimeout(timer);
    ends.abort();
  };
}

function periodChooser(choose) {
  const id = freshId("period");
  const current = new URLSearchParams(location.search).get("since") ?? "";
  const options = [["", _("since both are compared")], ["1h", _("the last hour")], ["24h", _("the last day")], ["7d", _("the last week")]];
  const select = h("select", { id }, options.map(([value, label]) => h("option", { value, selected: value === current }, label)));
  select.addEventListener("change", () => {
    setQuery({ since: select.value || null });
    choose();
  });
  return { element: h("div", { class: "field" }, h("label", { for: id }, _("Period")), select), get value() { return select.value; } };
}

function single() {
  return h("div", { class: "card empty" }, icon("status"), h("h2", {}, _("There is nothing to compare")), h("p", {}, _("There is one store only: pgvector is switched off.")));
}

// What stands in place of charts and lists before the first request.
function nothing(domain) {
  const analyse = h("a", { class: "button", href: `/?${new URLSearchParams({ domain })}` }, icon("analyse"), _("Analyse"));
  return h("div", { class: "card empty" }, icon("merge"), h("h2", {}, _("Nothing has been compared yet")), h("p", {}, _("The figures come by themselves while pictures are analysed in this domain and both stores are searched.")), h("div", { class: "row" }, analyse));
}

function dashboard(domain, changed) {
  const mode = modeCard(domain, changed);
  const gates = h("div", { class: "stack" });
  const tiles = h("dl", { class: "tiles" });
  const lists = [h("div", {}), h("div", {}), h("div", {})];
  let limits = {};
  const agreement = chart(_("Agreement over time"), { say: (value) => percent(value, 1), range: agreementRange, limit: () => limits.top1_rate ?? null });
  const latency = chart(_("Time of a search"), { say: milliseconds, range: (values) => [0, rounded(Math.max(1, ...values))] });
  const failures = chart(_("Failures of pgvector over time"), { say: number, range: (values) => [0, Math.max(2, 2 * Math.ceil(Math.max(0, ...values) / 2))], bars: true });
  const course = h(
    "div",
    { class: "stack" },
    h("div", { class: "columns" }, agreement.element, latency.element),
    h("div", { class: "columns" }, failures.element, h("section", { class: "card" }, h("h2", {}, _("Failures of pgvector")), lists[1])),
    h("section", { class: "card" }, h("h2", {}, _("Disagreements")), lists[0]),
  );
  const empty = nothing(domain);
  const element = h(
    "div",
    { class: "stack" },
    tiles,
    h("div", { class: "columns" }, h("div", { class: "stack" }, mode.element, h("section", { class: "card" }, h("h2", {}, _("Changes of the mode")), lists[2])), h("section", { class: "card" }, h("h2", {}, _("What must hold first")), gates)),
    empty,
    course,
  );
  const parts = new Map();
  // Draws a part anew only when it has something new to say, so that what is read or focused stays.
  const update = (name, data, draw) => {
    const text = JSON.stringify(data);
    if (parts.get(name) === text) return;
    parts.set(name, text);
    draw();
  };
  const show = (report, state, history) => {
    limits = Object.fromEntries(report.gates.map((gate) => [gate.name, gate.limit]));
    course.hidden = report.summary.requests === 0;
    empty.hidden = !course.hidden;
    update("mode", state, () => mode.show(state));
    update("tiles", report.summary, () => replace(tiles, figures(report.summary)));
    update("gates", report.gates, () => replace(gates, verdict(report.holds), gateList(report.gates)));
    update("series", report.series, () => drawSeries(report.series, agreement, latency, failures));
    update("disagreements", report.disagreements, () => replace(lists[0], reasons(report.summary.reasons), disagreementTable(report.disagreements)));
    update("failures", report.failures, () => replace(lists[1], failureTable(report.failures)));
    update("history", history, () => replace(lists[2], historyTable(history)));
  };
  return { element, show };
}

function verdict(holds) {
  if (holds) return h("div", { class: "notice good" }, icon("check"), h("strong", {}, _("pgvector may answer alone")));
  return h("div", { class: "notice" }, icon("warning"), h("strong", {}, _("Not yet")));
}

function figures(summary) {
  const compared = summary.comparisons > 0;
  const median = (latency) => (latency ? milliseconds(latency.p50) : "–");
  return [
    [_("Same person first"), compared ? percent(summary.top1_rate, 2) : "–"],
    [_("First five alike"), compared ? percent(summary.top5_overlap, 2) : "–"],
    [_("Compared faces"), number(summary.comparisons)],
    [_("Disagreements"), number(summary.disagreements)],
    [_("Failures of pgvector"), `${number(summary.failures)} / ${number(summary.requests)}`],
    [_("Half of the searches within"), `PKL ${median(summary.latency_ms.pkl)} · pgvector ${median(summary.latency_ms.pgvector)}`],
  ].map(([name, value]) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", { class: "number" }, value)));
}

function reasons(counts) {
  const rows = Object.entries(counts);
  if (!rows.length) return null;
  return h("ul", { class: "row reasons" }, rows.map(([code, count]) => h("li", { class: "badge" }, `${reason(code)} ${number(count)}`)));
}

function drawSeries(series, agreement, latency, failures) {
  const moments = series.map((bucket) => bucket.at);
  const line = (name, look, key) => ({ name, look, values: series.map((bucket) => bucket[key]) });
  agreement.draw(moments, [line(_("same person first"), "first", "top1_rate"), line(_("first five alike"), "second", "top5_overlap")]);
  latency.draw(moments, [line("PKL p50", "first", "pkl_p50"), line("PKL p95", "first dashed", "pkl_p95"), line("pgvector p50", "second", "pgvector_p50"), line("pgvector p95", "second dashed", "pgvector_p95")]);
  failures.draw(moments, [line(_("failures"), "bad", "failures")]);
}

function agreementRange(values) {
  const lowest = Math.min(0.98, ...values);
  return [Math.max(0, Math.floor(lowest * 20 - 1e-9) / 20), 1];
}

// The next round number: 1, 2, 5, 10, 20, 50, ...
function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((round) => round >= value);
}
