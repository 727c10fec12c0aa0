// The list itself. Only the rows around the window are in the document, however long the list is.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../../html.js";
import { t } from "../../i18n.js";
import { Status, hasEnded } from "../../parts/status.js";
import { Ago, Duration } from "../../parts/time.js";
import { link } from "../../router.js";

const AROUND = 12;
const NARROW = matchMedia("(max-width: 760px)");
const HEIGHT = { wide: 38, narrow: 78 };
const NEAR_END = 30;

function rowHeight() {
  return NARROW.matches ? HEIGHT.narrow : HEIGHT.wide;
}

/** Tell which rows the window shows of a table that begins at `top` of the document. */
function visible(body, count) {
  const height = rowHeight();
  const above = Math.max(0, -body.getBoundingClientRect().top);
  const first = Math.max(0, Math.floor(above / height) - AROUND);
  return { first, last: Math.min(count, first + Math.ceil(innerHeight / height) + 2 * AROUND), height };
}

function useWindow(body, count, onEnd) {
  const [shown, setShown] = useState({ first: 0, last: Math.min(count, 40), height: rowHeight() });
  const look = useRef(null);
  look.current = () => {
    if (!body.current) return;
    const next = visible(body.current, count);
    if (next.first !== shown.first || next.last !== shown.last || next.height !== shown.height) setShown(next);
    if (next.last >= count - NEAR_END) onEnd();
  };
  useLayoutEffect(() => look.current(), [count]);
  useEffect(() => {
    let asked = 0;
    const moved = () => {
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        look.current();
      });
    };
    addEventListener("scroll", moved, { passive: true });
    addEventListener("resize", moved);
    return () => {
      removeEventListener("scroll", moved);
      removeEventListener("resize", moved);
      cancelAnimationFrame(asked);
    };
  }, []);
  return { ...shown, last: Math.min(shown.last, count) };
}

function waited(item) {
  if (!item.submitted_at) return html`<span class="none">–</span>`;
  if (item.queue_wait_ms !== null && item.queue_wait_ms !== undefined) return html`<${Duration} seconds=${item.queue_wait_ms / 1000} />`;
  return html`<${Duration} from=${item.submitted_at} to=${item.start_time ?? (hasEnded(item.status) ? item.end_time : null)} />`;
}

function ran(item) {
  if (!item.start_time) return html`<span class="none">–</span>`;
  return html`<${Duration} from=${item.start_time} to=${hasEnded(item.status) ? (item.end_time ?? item.updated_at) : null} />`;
}

function Row({ row, at, selected, current, selectable, onSelect }) {
  const item = row.value;
  const problem = item.unreadable ? `${t("run.unreadable")}: ${item.unreadable}` : (item.error ?? "");
  const kind = `row ${selected ? "selected" : ""} ${current ? "current" : ""} ${item.removed ? "removed" : ""}`;
  return html`<tr class=${kind} aria-rowindex=${at + 2} aria-selected=${selectable ? selected : null} data-run=${item.run_id}>
    ${selectable && html`<td class="pick"><label><input type="checkbox" checked=${selected} aria-label=${t("runs.select", { id: item.run_id.slice(0, 8) })}
      onClick=${(event) => onSelect(item.run_id, event.shiftKey)} /></label></td>`}
    <td class="what"><${Status} of=${item.status} /></td>
    <td class="id"><a href=${link(`/runs/${encodeURIComponent(item.run_id)}`)}><code>${item.run_id}</code></a></td>
    <td class="flow">${item.flow_name}</td>
    <td class="tag"><a class="chip" href=${link("/runs", { tag: item.tag })}>${item.tag}</a></td>
    <td class="worker">${item.worker_id ?? html`<span class="none">–</span>`}${item.attempt > 1 && html` <span class="note" title=${t("runs.attempt.long", { n: item.attempt })}>${t("runs.attempt", { n: item.attempt })}</span>`}</td>
    <td class="waited">${waited(item)}</td>
    <td class="ran">${ran(item)}</td>
    <td class="updated"><${Ago} at=${item.updated_at} /></td>
    <td class="error" title=${problem}>${problem}</td>
  </tr>`;
}

const COLUMNS = ["status", "id", "flow", "tag", "worker", "waited", "ran", "updated", "error"];

/** `rows` are signals of items; `current` is the id of the row that the keyboard is at. */
export function Rows({ rows, selected, current, selectable, onSelect, onSelectAll, onEnd }) {
  const body = useRef(null);
  const { first, last, height } = useWindow(body, rows.length, onEnd);
  const all = rows.length > 0 && selected.size >= rows.length;
  useLayoutEffect(() => {
    const at = rows.findIndex((row) => row.peek().run_id === current);
    if (at >= 0) bringInSight(body.current, at, height);
  }, [current]);
  return html`<table class="runs" aria-rowcount=${rows.length + 1} aria-label=${t("nav.runs")}>
    <thead><tr aria-rowindex="1">
      ${selectable && html`<th class="pick"><label><input type="checkbox" aria-label=${t("runs.selectAll")} checked=${all} onClick=${onSelectAll} /></label></th>`}
      ${COLUMNS.map((name) => html`<th key=${name} class=${name === "status" ? "what" : name} scope="col">${t(`column.${name}`)}</th>`)}
    </tr></thead>
    <tbody ref=${body}>
      ${first > 0 && html`<tr class="gap" aria-hidden="true" style=${{ height: `${first * height}px` }}></tr>`}
      ${rows.slice(first, last).map((row, at) => {
        const id = row.peek().run_id;
        return html`<${Row} key=${id} row=${row} at=${first + at} selected=${selected.has(id)} current=${id === current} selectable=${selectable} onSelect=${onSelect} />`;
      })}
      ${last < rows.length && html`<tr class="gap" aria-hidden="true" style=${{ height: `${(rows.length - last) * height}px` }}></tr>`}
    </tbody>
  </table>`;
}

function bringInSight(body, at, height) {
  const top = body.getBoundingClientRect().top + at * height;
  const above = 120; // the frame and the list's own head stand there
  if (top < above) scrollBy(0, top - above);
  else if (top + height > innerHeight - 80) scrollBy(0, top + height - innerHeight + 80);
}
