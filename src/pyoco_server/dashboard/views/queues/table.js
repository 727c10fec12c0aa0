// One line for each tag: what waits for it, who takes it, and what to do when nobody does.
import { html } from "../../html.js";
import { now } from "../../clock.js";
import { number, t, tn } from "../../i18n.js";
import { Command } from "../../parts/copy.js";
import { Icon } from "../../parts/icon.js";
import { Sparkline } from "../../parts/sparkline.js";
import { Age } from "../../parts/time.js";
import { link } from "../../router.js";
import { helpFor, troubleOf } from "../overview/alerts.js";

const LOOKS = {
  no_worker: "failed", workers_gone: "failed", workers_draining: "failed", workers_unfit: "failed", all_busy: "running", starting: "pending",
  queue_limit: "cancelling", job_missing: "cancelling", not_fetched: "cancelling", ready: "completed", unserved: "skipped",
};
const NONE = html`<span class="none">–</span>`;
const MOST_NAMES = 3;
const COLUMNS = ["state", "tag", "waiting", "oldest", "depth", "flying", "again", "workers"];
const BRIEF = new Set(["state", "tag", "waiting", "oldest", "depth", "workers"]);

/** Those that need somebody stand first; within a kind the order is that of the names, so that lines stay where they are. */
export function worstFirst(queues, at) {
  const rank = (queue) => (troubleOf(queue, at) ? 0 : queue.waiting ? 1 : 2);
  return [...queues].sort((one, other) => rank(one) - rank(other) || (one.tag < other.tag ? -1 : 1));
}

export function QueueTable({ queues, told, brief = false }) {
  const columns = COLUMNS.filter((name) => !brief || BRIEF.has(name));
  return html`<table class="queues" aria-label=${t("nav.queues")}>
    <thead><tr>${columns.map((name) => html`<th key=${name} class=${name} scope="col" title=${name === "again" ? t("queues.again.long") : null}>${t(`queues.column.${name}`)}</th>`)}</tr></thead>
    <tbody>${queues.map((queue) => html`<${Row} key=${queue.tag} queue=${queue} told=${told} columns=${columns} helping=${!brief} />`)}</tbody>
  </table>`;
}

function Row({ queue, told, columns, helping }) {
  const trouble = troubleOf(queue, now.value);
  const command = helping && trouble && trouble !== "stuck" ? helpFor(queue, told.nats_url) : null;
  const cells = {
    state: html`<${State} queue=${queue} />`,
    waiting: html`<a href=${link("/runs", { status: "waiting", tag: queue.tag })}>${number(queue.waiting)}</a>`,
    oldest: queue.oldest_run_id ? html`<a href=${link(`/runs/${encodeURIComponent(queue.oldest_run_id)}`)}><${Age} at=${queue.oldest_at} /></a>` : queue.oldest_at ? html`<${Age} at=${queue.oldest_at} />` : NONE,
    depth: html`<${Depth} queue=${queue} every=${told.depth_every_sec} />`,
    flying: queue.in_flight === null ? NONE : html`<a href=${link("/runs", { status: "running", tag: queue.tag })}>${number(queue.in_flight)}</a>`,
    again: queue.redelivered === null ? NONE : html`<span class=${queue.redelivered ? "note" : ""}>${number(queue.redelivered)}</span>`,
    workers: html`<${Workers} queue=${queue} />`,
  };
  const cell = (name) => (name === "tag"
    ? html`<th key=${name} scope="row" class="tag"><a class="chip" href=${link("/runs", { tag: queue.tag })}>${queue.tag}</a></th>`
    : html`<td key=${name} class=${name} data-label=${t(`queues.column.${name}`)}>${cells[name]}</td>`);
  return html`<tr data-queue=${queue.tag} class=${command ? "helped" : ""}>${columns.map(cell)}</tr>
    ${command && html`<tr class="help"><td colspan=${columns.length}><div><p class=${trouble === "unserved" ? "wrong" : "note"}>${tn(`alert.${trouble === "unserved" ? queue.why : trouble}`, queue.waiting, { tag: queue.tag, slots: queue.slots })}</p><${Command} text=${command} /></div></td></tr>`}`;
}

function State({ queue }) {
  const state = queue.why ?? (queue.workers.length ? "ready" : "unserved");
  const look = LOOKS[state] ?? "other";
  return html`<span class="status ${look}"><${Icon} name=${look} /><span>${state in LOOKS ? t(`queues.state.${state}`) : state}</span></span>`;
}

function Depth({ queue, every }) {
  const values = [...queue.depths, queue.waiting];
  const minutes = Math.max(1, Math.round((queue.depths.length * every) / 60));
  return html`<${Sparkline} values=${values} label=${t("queues.depth", { tag: queue.tag, most: Math.max(...values), n: queue.waiting, minutes })} />`;
}

function Workers({ queue }) {
  if (!queue.workers.length) return html`<span class="none">${t("queues.nobody")}</span>`;
  const names = queue.workers.slice(0, MOST_NAMES).join(", ");
  const more = queue.workers.length - MOST_NAMES;
  return html`<a href=${link("/workers")}>${more > 0 ? t("queues.andMore", { names, n: more }) : names}
    <span class="none">${tn("queues.slots", queue.slots, { free: queue.free_slots })}</span></a>`;
}
