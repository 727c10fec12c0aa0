// A curve or bars over time. uPlot draws it; the words beside it say the same to who cannot see it.
import { html, useEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { clock, language, theme } from "../preferences.js";
import { minuteOfDay } from "./time.js";

const HEIGHT = 150;
const AXIS = 72;
const dark = matchMedia("(prefers-color-scheme: dark)");

/**
 * `times` are unix seconds; `series` is `[{ name, text, values, bars }]`, where `name` gives the colour and `values`
 * may hold null. Bars stand on each other, the first lowest. `format` writes a value, `tick` one at the
 * axis; `label` says what is shown; `whole` is for what has no fractions.
 */
export function Chart({ label, times, series, format, tick = format, whole = false }) {
  const box = useRef(null);
  const drawing = useRef(null);
  const [at, setAt] = useState(null);
  const [isDark, setDark] = useState(dark.matches);
  useEffect(() => {
    const changed = () => setDark(dark.matches);
    dark.addEventListener("change", changed);
    return () => dark.removeEventListener("change", changed);
  }, []);
  const data = [times, ...stacked(series)];
  useEffect(() => {
    let chart = null;
    let here = true;
    const place = box.current;
    const resized = new ResizeObserver(() => here && chart.setSize({ width: place.clientWidth, height: HEIGHT }));
    import("../vendor/uplot.js").then(
      ({ default: UPlot }) => {
        if (!here) return;
        chart = drawing.current = new UPlot(options(UPlot, place, series, tick, whole, setAt), data, place);
        resized.observe(place);
      },
      () => {}, // the words stand there all the same
    );
    return () => {
      here = false;
      resized.disconnect();
      chart?.destroy();
      drawing.current = null;
    };
  }, [theme.value, isDark, language.value, clock.value, series.map(({ name }) => name).join()]);
  useEffect(() => drawing.current?.setData(data), [times, ...series.map(({ values }) => values)]);
  return html`<div class="chart">
    <div class="legend">${series.map(({ name, text, values }) => html`<span key=${name}><i class="ink ${name}"></i>${text}${at !== null && html` <b>${shown(values[at], format)}</b>`}</span>`)}
      <span class="when">${at !== null && minuteOfDay(times[at])}</span></div>
    <div class="canvas" ref=${box} role="img" aria-label=${label}></div>
  </div>`;
}

function shown(value, format) {
  return value === null || value === undefined ? t("chart.none") : format(value);
}

/** Bars are drawn from the whole pile down to its lowest part, so that each covers the one behind. */
function stacked(series) {
  if (!series[0].bars) return series.map(({ values }) => values);
  const piles = [];
  for (const { values } of series) piles.push(values.map((value, at) => value + (piles.at(-1)?.[at] ?? 0)));
  return piles.reverse();
}

function options(UPlot, box, series, tick, whole, setAt) {
  const inks = series.map(({ name }) => getComputedStyle(box.parentElement.querySelector(`.ink.${name}`)).color);
  const { color, borderTopColor } = getComputedStyle(box);
  const bars = series[0].bars;
  const drawn = series.map(({ name }, at) => ({
    label: name,
    stroke: inks[at],
    fill: bars ? inks[at] : undefined,
    width: bars ? 0 : 1.8,
    paths: bars ? UPlot.paths.bars({ size: [0.72, 14], align: 1 }) : undefined,
    points: { show: !bars, size: 4, fill: inks[at] },
  }));
  const font = `11px ${getComputedStyle(box).fontFamily}`;
  const axis = { stroke: color, font, ticks: { show: false }, grid: { stroke: borderTopColor, width: 1 } };
  return {
    width: box.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    padding: [8, 14, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { show: !bars } },
    scales: { x: { time: true, range: (_, low, high) => [low, high + (bars ? high - low : 0) / series[0].values.length] }, y: { range: (_, low, high) => [0, Math.max(high * 1.08, whole ? 4 : 0.004)] } },
    axes: [
      { ...axis, size: 24, space: 70, values: (_, splits) => splits.map(minuteOfDay), grid: { show: false } },
      { ...axis, size: AXIS, space: 26, values: (_, splits) => splits.map(tick), incrs: whole ? wholeSteps() : undefined },
    ],
    series: [{}, ...(bars ? drawn.reverse() : drawn)],
    hooks: { setCursor: [(chart) => setAt(chart.cursor.idx ?? null)] },
  };
}

function wholeSteps() {
  return Array.from({ length: 9 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();
}
