// When each task ran, beneath each other on one line of time.
import { html, useEffect, useRef } from "../../html.js";
import { now } from "../../clock.js";
import { t } from "../../i18n.js";
import { hasEnded, look, statusWord } from "../../parts/status.js";
import { duration } from "../../parts/time.js";
import { recordOf, taskNames, taskStatus } from "./tasks.js";

const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
const MOST_TICKS = 6;

/** Give the points of the time line that are told, in seconds from its beginning. */
export function ticks(length) {
  const step = STEPS.find((one) => length / one <= MOST_TICKS) ?? Math.ceil(length / MOST_TICKS / 86400) * 86400;
  return Array.from({ length: Math.floor(length / step) + 1 }, (_, at) => at * step);
}

/** Give when a task ran as `{ from, to }` in unix seconds, or null. */
function spanOf(run, record, status, clock) {
  if (!record.started_at) return null;
  const running = status === "RUNNING" && !hasEnded(run.status);
  const to = record.ended_at ?? (running ? Math.max(clock, record.started_at) : record.started_at);
  return { from: record.started_at, to, seconds: running ? null : (record.duration_ms ?? 0) / 1000 };
}

export function Gantt({ run, graph, task, onTask }) {
  const list = useRef(null);
  const live = !hasEnded(run.status);
  const clock = live ? now.value : 0;
  const rows = taskNames(run, graph).map((name) => {
    const status = taskStatus(run, name);
    return { name, status, span: spanOf(run, recordOf(run, name), status, clock) };
  });
  const spans = rows.filter((row) => row.span).map((row) => row.span);
  const begin = Math.min(run.start_time ?? Infinity, ...spans.map((span) => span.from));
  const end = Math.max(begin, live ? clock : (run.end_time ?? 0), ...spans.map((span) => span.to));
  const length = Math.max(0.001, end - begin);
  useEffect(() => {
    const row = task && list.current?.querySelector(`[data-task="${CSS.escape(task)}"]`);
    if (row) list.current.scrollTop = Math.max(0, row.offsetTop - list.current.clientHeight / 2);
  }, [task]);
  if (!Number.isFinite(begin)) return html`<p class="none gantt-none">${t("gantt.none")}</p>`;
  const percent = (seconds) => `${Math.min(100, Math.max(0, (seconds / length) * 100))}%`;
  return html`<div class="gantt" role="group" aria-label=${t("gantt.label")}>
    <div class="axis" aria-hidden="true"><span></span><div>${ticks(length).filter((at) => at / length < 0.93).map((at) => html`<i key=${at} style=${{ left: percent(at) }}>${at ? duration(at) : "0"}</i>`)}</div></div>
    <div class="bars" ref=${list}>${rows.map(({ name, status, span }) => {
      const told = span ? duration(span.seconds ?? span.to - span.from) : statusWord(status);
      const { kind, style } = span ? toldAt(span, begin, length) : { kind: "", style: { left: 0 } };
      return html`<button type="button" key=${name} data-task=${name} class="bar-row ${name === task ? "selected" : ""}" aria-pressed=${name === task} onClick=${() => onTask(name)}>
        <span class="name">${name}</span>${span && html`<span class="unseen">${statusWord(status)}</span>`}
        <span class="track">${span && html`<span class="bar ${look(status)}" style=${{ left: percent(span.from - begin), width: percent(span.to - span.from) }}></span>`}
          <span class="told ${kind}" style=${style}>${told}</span></span>
      </button>`;
    })}</div>
  </div>`;
}

/** Where the length is written: behind its bar, before it, or inside where there is room nowhere else. */
function toldAt(span, begin, length) {
  const from = Math.min(100, ((span.from - begin) / length) * 100);
  const to = Math.min(100, ((span.to - begin) / length) * 100);
  if (to < 84) return { kind: "", style: { left: `calc(${to}% + 6px)` } };
  if (from > 16) return { kind: "", style: { right: `calc(${100 - from}% + 6px)` } };
  return { kind: "inside", style: { right: `calc(${100 - to}% + 8px)` } };
}
