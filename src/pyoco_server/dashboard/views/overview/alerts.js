// What needs somebody: each with a sentence, where to look, and the command that helps.
import { html } from "../../html.js";
import { number, t, tn } from "../../i18n.js";
import { workerCommand } from "../../parts/commands.js";
import { Command } from "../../parts/copy.js";
import { Icon } from "../../parts/icon.js";
import { Age, Ago, Time } from "../../parts/time.js";
import { link } from "../../router.js";
import { isUnfit, troubleText } from "../workers/row.js";

const LONG_SEC = 600;
const CROWDED = 0.8;
const MOST_NAMES = 5;
const UNSERVED = new Set(["no_worker", "workers_gone", "workers_draining", "workers_unfit"]);
const STUCK = new Set(["queue_limit", "job_missing", "not_fetched"]);

/** Tell what is wrong with a queue: "unserved", "stuck", "long", or null. */
export function troubleOf(queue, now) {
  if (!queue.why) return null;
  if (UNSERVED.has(queue.why)) return "unserved";
  if (STUCK.has(queue.why)) return "stuck";
  return queue.why === "all_busy" && queue.oldest_at && now - queue.oldest_at > LONG_SEC ? "long" : null;
}

/** The command that gives a queue another worker. */
export function helpFor(queue, natsUrl) {
  return workerCommand(natsUrl, queue.tag, queue.workers);
}

/** Tell whether a worker takes no runs because of its machine, and nobody has hidden it. */
export function isMissed(worker) {
  return isUnfit(worker) && !worker.hidden;
}

export function isLost(worker) {
  return worker.state === "DISCONNECTED" && !worker.hidden;
}

/** Give what needs somebody, the worst first. */
export function alertsOf(told, workers, now) {
  const queues = told.queues.map((queue) => ({ queue, trouble: troubleOf(queue, now) })).filter(({ trouble }) => trouble);
  const of = (trouble) => queues.filter((one) => one.trouble === trouble).map(({ queue }) => ofQueue(queue, trouble, told.nats_url));
  const lost = workers.filter(isLost);
  return [...ofRoom(told.storage), ...of("unserved"), ...ofUnfit(workers.filter(isMissed)), ...ofLost(lost, told.nats_url), ...of("stuck"), ...of("long")];
}

function ofQueue(queue, trouble, natsUrl) {
  const { tag, waiting, slots } = queue;
  const run = queue.oldest_run_id && html`<a href=${link(`/runs/${encodeURIComponent(queue.oldest_run_id)}`)}>${t("alert.oldest")} <${Age} at=${queue.oldest_at} /></a>`;
  return {
    key: `${trouble} ${tag}`,
    kind: trouble === "unserved" ? "bad" : "warn",
    text: tn(`alert.${trouble === "unserved" ? queue.why : trouble}`, waiting, { tag, slots }),
    links: [run, html`<a href=${link("/queues")}>${t("nav.queues")}</a>`],
    command: trouble === "stuck" ? null : helpFor(queue, natsUrl),
  };
}

function namesOf(workers) {
  return workers.slice(0, MOST_NAMES).map((worker) => worker.worker_id).join(", ") + (workers.length > MOST_NAMES ? " …" : "");
}

function ofUnfit(unfit) {
  if (!unfit.length) return [];
  const names = namesOf(unfit);
  const since = Math.min(...unfit.map((worker) => worker.trouble.since));
  const why = unfit.length === 1 ? `${troubleText(unfit[0].trouble)} ` : "";
  return [{
    key: `unfit ${names}`,
    kind: "bad",
    text: tn("alert.unfit", unfit.length, { names }),
    note: why + t("alert.unfit.what"),
    links: [html`<a href=${link("/workers")}>${t("workers.trouble.since")} <${Time} at=${since} /></a>`],
    command: null,
  }];
}

function ofLost(lost, natsUrl) {
  if (!lost.length) return [];
  const names = namesOf(lost);
  const runs = lost.flatMap((worker) => worker.current_run_ids ?? []).length;
  const seen = Math.max(...lost.map((worker) => worker.last_seen_at ?? 0));
  return [{
    key: `lost ${names}`,
    kind: "bad",
    text: tn("alert.lost", lost.length, { names }),
    note: (runs ? tn("alert.lost.runs", runs) : "") + t("alert.lost.what"),
    links: [html`<a href=${link("/workers")}>${t("alert.seen")} <${Ago} at=${seen} /></a>`],
    command: lost.length === 1 && lost[0].tags?.length ? workerCommand(natsUrl, lost[0].tags.join(","), [], lost[0].worker_id) : null,
  }];
}

function ofRoom({ accepts_submissions: accepts, used_share: share, full_share: full, refusal }) {
  const percent = (value) => `${number(Math.round(value * 100))} %`;
  if (!accepts) return [{ key: "full", kind: "bad", text: t("alert.full"), note: refusal, links: [] }];
  if (share === null || share < CROWDED * full) return [];
  return [{ key: "crowded", kind: "warn", text: t("alert.crowded", { share: percent(share), full: percent(full) }), note: t("alert.crowded.what"), links: [] }];
}

export function Alerts({ alerts }) {
  if (!alerts.length) return null;
  return html`<ul class="alerts" aria-label=${t("alert.label")}>${alerts.map(({ key, kind, text, note, links, command }) => html`
    <li key=${key} class="alert ${kind}">
      <p class="what"><${Icon} name="warning" /><span>${text}${note && html` <small>${note}</small>`}</span></p>
      ${links.filter(Boolean).length > 0 && html`<p class="links">${links}</p>`}
      ${command && html`<${Command} text=${command} />`}
    </li>`)}</ul>`;
}
