// Small charts of figures over time. What they show stands in a table as well, for those who do not see them.

import { h, replace, svg } from "./dom.js";
import { dateTime, gettext as _, shortTime } from "./i18n.js";

const HEIGHT = 170;
const EDGE = { top: 10, right: 12, bottom: 24, left: 52 };

// A figure with `element` and `draw(moments, series)`, where a series is `{name, look, values}` with a value or null for
// each moment. `say(value)` writes a value; `range(values)` gives the lowest and the highest of the axis; `bars` draws
// bars from the bottom; `limit()` is where a line is drawn across, or null.
export function chart(title, { say, range, bars = false, limit = () => null }) {
  const drawing = svg("svg", { class: "chart", role: "img", height: HEIGHT });
  const legend = h("ul", { class: "legend" });
  const table = h("div", { class: "table-box chart-table", tabindex: "0", role: "region", "aria-label": title });
  const numbers = h("details", { class: "fold small" }, h("summary", {}, _("As a table")), table);
  const element = h("figure", { class: "card chart-card" }, h("figcaption", {}, h("h2", {}, title)), drawing, legend, numbers);
  let shown = { moments: [], series: [] };
  let width = 0;

  const paint = () => {
    if (!width) return;
    const { moments, series } = shown;
    const values = series.flatMap((one) => one.values).filter((value) => value !== null);
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    drawing.setAttribute("aria-label", described(title, series, say));
    const frame = scales(moments.length, range(values), width, bars);
    const line = limit();
    drawing.replaceChildren(
      ...axes(frame, moments, say),
      ...(line === null ? [] : [across(frame, line)]),
      ...series.flatMap((one) => (bars ? columns(frame, one) : curve(frame, one))),
    );
    replace(legend, series.map((one) => h("li", {}, h("span", { class: `dot ${one.look}`, "aria-hidden": "true" }), one.name, h("span", { class: "number muted" }, told(last(one.values), say)))));
    if (numbers.open) tabulate();
  };
  const tabulate = () => replace(table, tableOf(shown, title, say));
  numbers.addEventListener("toggle", tabulate);
  new ResizeObserver(([entry]) => {
    width = Math.round(entry.contentRect.width);
    paint();
  }).observe(element);
  return {
    element,
    draw(moments, series) {
      shown = { moments, series };
      width ||= Math.max(0, Math.round(element.clientWidth - 40));
      paint();
    },
  };
}

function last(values) {
  return values.findLast((value) => value !== null) ?? null;
}

function told(value, say) {
  return value === null ? "–" : say(value);
}

function described(title, series, say) {
  const ends = series.map((one) => `${one.name} ${told(last(one.values), say)}`);
  return `${title}: ${ends.join(", ")}`;
}

// Where values and moments lie, in pixels.
function scales(count, [low, high], width, bars) {
  const inner = { width: width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom };
  const step = inner.width / Math.max(1, bars ? count : count - 1);
  return {
    low,
    high,
    step,
    width,
    bottom: HEIGHT - EDGE.bottom,
    x: (index) => EDGE.left + (bars ? (index + 0.5) * step : count === 1 ? inner.width / 2 : index * step),
    y: (value) => EDGE.top + inner.height * (1 - (value - low) / (high - low || 1)),
  };
}

function axes(frame, moments, say) {
  const marks = [frame.low, (frame.low + frame.high) / 2, frame.high].map((value) => [
    svg("line", { class: "chart-grid", x1: EDGE.left, x2: frame.width - EDGE.right, y1: frame.y(value), y2: frame.y(value) }),
    svg("text", { class: "chart-text", x: EDGE.left - 8, y: frame.y(value) + 4, "text-anchor": "end" }, say(value)),
  ]);
  const span = moments.length > 1 ? new Date(moments.at(-1)) - new Date(moments[0]) : 0;
  const label = (index, anchor) => svg("text", { class: "chart-text", x: frame.x(index), y: HEIGHT - 6, "text-anchor": anchor }, shortTime(moments[index], span));
  const labels = moments.length > 1 ? [label(0, "start"), label(moments.length - 1, "end")] : moments.map((_moment, index) => label(index, "middle"));
  return [...marks.flat(), ...labels];
}

function across(frame, value) {
  const y = Math.min(frame.bottom, frame.y(value));
  return svg("line", { class: "chart-limit", x1: EDGE.left, x2: frame.width - EDGE.right, y1: y, y2: y });
}

// A line through the values, broken where there is none; a value alone is a dot.
function curve(frame, { look, values }) {
  const runs = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index === 0 || values[index - 1] === null) runs.push([]);
    runs.at(-1).push([frame.x(index), frame.y(value)]);
  });
  return runs.map((points) =>
    points.length === 1
      ? svg("circle", { class: `chart-dot ${look}`, cx: points[0][0], cy: points[0][1], r: 3 })
      : svg("path", { class: `chart-line ${look}`, d: `M${points.map((point) => point.map((part) => part.toFixed(1)).join(" ")).join("L")}` }),
  );
}

function columns(frame, { look, values }) {
  const width = Math.max(2, Math.min(18, frame.step * 0.7));
  return values.flatMap((value, index) => {
    if (!value) return [];
    const top = Math.min(frame.y(value), frame.bottom - 2);
    return [svg("rect", { class: `chart-bar ${look}`, x: frame.x(index) - width / 2, y: top, width, height: frame.bottom - top, rx: 2 })];
  });
}

function tableOf({ moments, series }, title, say) {
  const rows = moments.map((moment, index) => ({ moment, values: series.map((one) => one.values[index]) })).filter((row) => row.values.some((value) => value !== null));
  return h(
    "table",
    { class: "table" },
    h("caption", { class: "hidden-text" }, title),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, _("From")), series.map((one) => h("th", { scope: "col", class: "number" }, one.name)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, dateTime(row.moment)), row.values.map((value) => h("td", { class: "number" }, told(value, say)))))),
  );
}
