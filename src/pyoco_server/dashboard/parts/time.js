// Points in time and durations, as the reader wants them told.
import { html } from "../html.js";
import { now } from "../clock.js";
import { number, t } from "../i18n.js";
import { clock, language } from "../preferences.js";

const formats = new Map();

function format(zone, options) {
  const name = `${language.value} ${zone} ${JSON.stringify(options)}`;
  if (!formats.has(name)) formats.set(name, new Intl.DateTimeFormat(language.value, { timeZone: zone, ...options }));
  return formats.get(name);
}

const WHOLE = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const FINE = { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" };
const SHORT = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const MINUTE = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const OTHER_DAY = { month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

function chosenZone() {
  return clock.value === "utc" ? "UTC" : undefined;
}

/** Tell a point in time (unix seconds) whole, with its zone where that is UTC. */
export function wholeTime(seconds, zone = chosenZone()) {
  return format(zone, WHOLE).format(seconds * 1000) + (zone === "UTC" ? " UTC" : "");
}

function shortTime(seconds) {
  const far = Math.abs(now.peek() - seconds) > 20 * 3600;
  return format(chosenZone(), far ? OTHER_DAY : SHORT).format(seconds * 1000);
}

/** Tell the time of day to the minute. */
export function minuteOfDay(seconds) {
  return format(chosenZone(), MINUTE).format(seconds * 1000);
}

/** Tell the time of day to the millisecond, for what follows each other closely. */
export function timeOfDay(seconds) {
  return format(chosenZone(), FINE).format(seconds * 1000);
}

function both(seconds) {
  return `${wholeTime(seconds, undefined)}\n${wholeTime(seconds, "UTC")}`;
}

/** A point in time by the clock; the other clock shows on hover. */
export function Time({ at, whole = false }) {
  if (!at) return html`<span class="none">–</span>`;
  return html`<time datetime=${new Date(at * 1000).toISOString()} title=${both(at)}>${whole ? wholeTime(at) : shortTime(at)}</time>`;
}

/** How long ago something was; it grows by itself. */
export function Ago({ at }) {
  if (!at) return html`<span class="none">–</span>`;
  const seconds = Math.max(0, now.value - at);
  return html`<time datetime=${new Date(at * 1000).toISOString()} title=${both(at)}>${seconds < 3 ? t("time.now") : t("time.ago", { time: roughly(seconds) })}</time>`;
}

function roughly(seconds) {
  const [unit, size] = seconds < 60 ? ["s", 1] : seconds < 3600 ? ["min", 60] : seconds < 86400 ? ["h", 3600] : ["d", 86400];
  return t(`time.${unit}`, { n: Math.floor(seconds / size) });
}

/** Write a duration with as many figures as help. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const of = Math.max(0, seconds);
  if (of < 0.00995) return t("time.ms", { n: number(Math.round(of * 10000) / 10) });
  if (of < 0.9995) return t("time.ms", { n: Math.round(of * 1000) });
  if (of < 9.995) return t("time.s", { n: number(Math.round(of * 100) / 100) });
  if (of < 59.95) return t("time.s", { n: number(Math.round(of * 10) / 10) });
  const whole = Math.round(of);
  const parts = [["d", Math.floor(whole / 86400)], ["h", Math.floor(whole / 3600) % 24], ["min", Math.floor(whole / 60) % 60], ["s", whole % 60]];
  const first = parts.findIndex(([, n]) => n);
  return parts.slice(first, first + 2).filter(([, n]) => n).map(([unit, n]) => t(`time.${unit}`, { n })).join(" ");
}

/** A duration; without an end it runs on. */
export function Duration({ from, to = null, seconds = null }) {
  if (seconds !== null) return html`<span>${duration(seconds)}</span>`;
  if (!from) return html`<span class="none">–</span>`;
  return html`<span>${duration((to ?? Math.floor(now.value)) - from)}</span>`;
}

/** How long something has gone on by now, in whole seconds. */
export function Age({ at }) {
  const seconds = Math.floor(now.value - at);
  return html`<span>${seconds < 1 ? t("time.s", { n: 0 }) : duration(seconds)}</span>`;
}
