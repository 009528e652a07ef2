// A line chart over time: one SVG, redrawn for each sample, themed by classes alone. A pointer or
// the arrow keys move a cursor that names the values.

import { svg, h, text, attr, live } from "./dom.js";
import { clock } from "./format.js";

const LEFT = 44;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 22;
const HEIGHT = 180;
/** The window grows with the samples, so that the chart of a new page is not mostly empty. */
const WINDOWS_MS = [2, 5, 15].map((minutes) => minutes * 60_000);

/**
 * `series`: [{ key, name, tone }] in drawing order; `format` writes a value; `area` fills below
 * the first. The node's `refresh({ samples, now })` redraws.
 */
export function lineChart({ label, series, format }) {
  const grid = svg("g", { class: "grid" });
  const shapes = svg("g", {});
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  const picture = svg("svg", { class: "plot", tabindex: 0, role: "img", height: HEIGHT }, grid, shapes, cursor);
  const readout = h("div", { class: "readout", "aria-live": "off" });
  const node = h("div", { class: "chart" }, picture, readout);
  const state = { samples: [], now: Date.now(), at: undefined, width: 0 };

  const draw = () => {
    if (state.width < 80) return;
    paint({ state, series, format, grid, shapes, cursor, readout, picture, label });
  };
  new ResizeObserver(([entry]) => {
    state.width = Math.round(entry.contentRect.width);
    attr(picture, "width", state.width);
    draw();
  }).observe(node);
  steer(picture, state, draw);
  return live(node, ({ samples, now }) => {
    state.samples = samples;
    state.now = now;
    draw();
  });
}

function steer(picture, state, draw) {
  const move = (at) => {
    state.at = at;
    draw();
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const { from, to } = range(state);
    const inside = (event.clientX - box.left - LEFT) / (state.width - LEFT - RIGHT);
    move(nearest(state.samples, from + inside * (to - from)));
  });
  picture.addEventListener("pointerleave", () => move(undefined));
  picture.addEventListener("blur", () => move(undefined));
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || state.samples.length === 0) return;
    event.preventDefault();
    const last = state.samples.length - 1;
    const index = state.samples.findIndex((sample) => sample.t === state.at);
    const next = index < 0 ? last : Math.min(last, Math.max(0, index + step));
    move(state.samples[next].t);
  });
}

function nearest(samples, t) {
  let best;
  for (const sample of samples) {
    if (sample.gap) continue;
    if (best === undefined || Math.abs(sample.t - t) < Math.abs(best - t)) best = sample.t;
  }
  return best;
}

function range({ samples, now }) {
  const age = now - (samples[0]?.t ?? now);
  const width = WINDOWS_MS.find((candidate) => age <= candidate) ?? WINDOWS_MS.at(-1);
  return { from: now - width, to: now };
}

function paint({ state, series, format, grid, shapes, cursor, readout, picture, label }) {
  const { from, to } = range(state);
  const shown = state.samples.filter((sample) => sample.t >= from);
  const peak = Math.max(0, ...shown.flatMap((s) => series.map(({ key }) => s[key] ?? 0)));
  const { top, step } = scale(peak);
  const x = (t) => LEFT + ((t - from) / (to - from)) * (state.width - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);

  grid.replaceChildren(...gridLines({ top, step, y, format, width: state.width }), ...times(from, to, x));
  shapes.replaceChildren(
    ...series.flatMap(({ key, tone }, index) => {
      const runs = split(index > 0 ? risen(shown, key) : shown, key).map((run) => run.map((s) => [x(s.t), y(s[key])]));
      const lines = svg("path", { class: `line ${tone}`, d: runs.map(path).join("") });
      const dots = runs.filter((run) => run.length === 1).map(([[cx, cy]]) =>
        svg("circle", { class: `dot ${tone}`, cx, cy, r: 2 }));
      if (index > 0) return [lines, ...dots];
      const fill = runs.filter((run) => run.length > 1).map((run) => closed(run, y(0))).join("");
      return [svg("path", { class: `area ${tone}`, d: fill }), lines, ...dots];
    }),
  );
  const chosen = shown.find((sample) => sample.t === state.at);
  attr(cursor, "visibility", chosen ? "visible" : "hidden");
  if (chosen) {
    attr(cursor, "x1", x(chosen.t));
    attr(cursor, "x2", x(chosen.t));
  }
  legend(readout, series, chosen ?? shown.filter((s) => !s.gap).at(-1), format, chosen);
  attr(picture, "aria-label", `${label}: ${readout.textContent}; peak ${format(peak)}`);
}

function legend(readout, series, sample, format, chosen) {
  const parts = series.map(({ key, name, tone }) =>
    h("span", { class: "key" }, h("i", { class: `swatch ${tone}` }), `${name} `, h("b", {}, format(sample?.[key]))));
  readout.replaceChildren(...parts, h("span", { class: "when" }, chosen ? clock(chosen.t) : "now"));
}

function gridLines({ top, step, y, format, width }) {
  const lines = [];
  for (let value = 0; value <= top * 1.0001; value += step) {
    const at = Math.round(y(value)) + 0.5;
    const label = svg("text", { x: LEFT - 8, y: at + 4, class: "tick end" });
    // Steps are round numbers, so their labels need no trailing zeros.
    text(label, format(value).replace(/\.0+$/, ""));
    lines.push(svg("line", { x1: LEFT, x2: width - RIGHT, y1: at, y2: at }), label);
  }
  return lines;
}

function times(from, to, x) {
  return [0, 0.5, 1].map((share) => {
    const t = from + share * (to - from);
    const minutes = Math.round((to - t) / 6000) / 10;
    const place = share === 0 ? "start" : share === 1 ? "end" : "middle";
    const label = svg("text", { x: x(t), y: HEIGHT - 5, class: `tick ${place}` });
    text(label, minutes === 0 ? "now" : `−${minutes} min`);
    return label;
  });
}

/** A round upper end with at most four steps below it. */
function scale(peak) {
  if (peak <= 0) return { top: 1, step: 0.5 };
  const rough = peak / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  return { top: Math.ceil(peak / step) * step, step };
}

/** Gaps where a value stays at zero, because a line along the axis would be misleading. */
function risen(samples, key) {
  const isUp = (sample) => sample?.[key] > 0;
  return samples.map((sample, at) => (samples.slice(Math.max(0, at - 1), at + 2).some(isUp) ? sample : { t: sample.t, gap: true }));
}

function split(samples, key) {
  const runs = [[]];
  for (const sample of samples) {
    if (sample.gap || sample[key] === undefined) runs.push([]);
    else runs.at(-1).push(sample);
  }
  return runs.filter((run) => run.length > 0);
}

const path = (points) => `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`;

function closed(points, base) {
  return `${path(points)}L${points.at(-1)[0].toFixed(1)} ${base}L${points[0][0].toFixed(1)} ${base}Z`;
}
