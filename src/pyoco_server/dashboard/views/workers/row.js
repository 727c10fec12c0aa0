// One worker.
import { html, useState } from "../../html.js";
import { patch, post } from "../../api.js";
import { has, number, t, tn } from "../../i18n.js";
import { say, sayError } from "../../parts/announce.js";
import { Icon } from "../../parts/icon.js";
import { Isolation } from "../../parts/isolation.js";
import { ReasonDialog } from "../../parts/reason.js";
import { size } from "../../parts/size.js";
import { Ago, Time } from "../../parts/time.js";
import { link } from "../../router.js";
import { allows } from "../../session.js";

const LOOKS = { RUNNING: "running", IDLE: "completed", STOPPED_GRACEFUL: "skipped", DISCONNECTED: "failed", DRAINING: "cancelling", UNFIT: "failed" };
const KINDS = new Set(["state_directory", "start_directory", "program", "environment", "process"]);
export const COLUMNS = ["state", "name", "tags", "slots", "runs", "memory", "cpu", "gpus", "seen", "wheels"];
const NONE = html`<span class="none">–</span>`;

export function isHere(worker) {
  return worker.state === "RUNNING" || worker.state === "IDLE";
}

/** Tell whether its machine keeps a worker that is there from taking runs. */
export function isUnfit(worker) {
  return isHere(worker) && !worker.draining && Boolean(worker.trouble) && worker.trouble.slots >= worker.slots;
}

/** Tell what its machine lacks, in the reader's language; the worker's own words stand beside it. */
export function troubleText({ kind }) {
  return t(`workers.trouble.${KINDS.has(kind) ? kind : "other"}`);
}

function State({ worker }) {
  const state = worker.draining ? "DRAINING" : isUnfit(worker) && worker.state === "IDLE" ? "UNFIT" : worker.state;
  const look = LOOKS[state] ?? "other";
  const word = has(`workers.state.${state}`) ? t(`workers.state.${state}`) : state;
  return html`<span class="status ${look}" title=${worker.stop_reason ?? worker.drain_reason ?? ""}><${Icon} name=${look} /><span>${word}</span></span>`;
}

function Slots({ worker }) {
  if (!worker.slots) return NONE;
  return html`${isHere(worker) ? worker.slots_in_use ?? 0 : 0} / ${worker.slots}${worker.isolation && html`<small><${Isolation} of=${worker.isolation} /></small>`}`;
}

function Runs({ worker }) {
  const lost = worker.state === "DISCONNECTED";
  const runs = isHere(worker) || lost ? worker.current_run_ids ?? [] : [];
  if (!runs.length) return NONE;
  const links = runs.map((id) => html`<a key=${id} href=${link(`/runs/${encodeURIComponent(id)}`)}><code>${id.slice(0, 8)}</code></a> `);
  return lost ? html`<span class="none">${t("workers.runsThen")}</span> ${links}` : links;
}

function Gpus({ gpus }) {
  if (!gpus?.length) return NONE;
  return gpus.map((gpu, at) => html`<div key=${at} title=${gpu.name}>${size(gpu.memory_used_bytes)} / ${size(gpu.memory_total_bytes)}</div>`);
}

function Wheels({ sync }) {
  if (!sync?.enabled) return html`<span class="none">${t("workers.wheels.off")}</span>`;
  if (sync.last_error) return html`<span class="wrong" title=${sync.last_error}><${Icon} name="warning" /> ${sync.last_error}</span>`;
  return sync.outcome ?? sync.last_result ?? NONE;
}

/** What keeps a worker from beginning runs, on a line of its own below it. */
function TroubleRow({ worker, columns }) {
  const { reason, since, next_try_at: next, slots } = worker.trouble;
  return html`<tr class="trouble" data-trouble=${worker.worker_id}><td colspan=${columns}><div>
    <p class=${isUnfit(worker) ? "wrong" : "note"}><${Icon} name="warning" /> ${!isUnfit(worker) && tn("workers.trouble.slots", slots) + " "}${troubleText(worker.trouble)}${" "}
      <span class="none">${t("workers.trouble.since")} <${Time} at=${since} />${next && html` · ${t("workers.trouble.next")} <${Time} at=${next} />`}</span></p>
    <p class="said">${reason}</p></div></td></tr>`;
}

export function Row({ worker, onChange }) {
  const [asking, setAsking] = useState(false);
  const path = `/workers/${encodeURIComponent(worker.worker_id)}`;
  const change = async (request, said) => {
    try {
      onChange(await request());
      say(said);
    } catch (error) {
      sayError(error);
    }
  };
  const hide = () => change(() => patch(path, { hidden: !worker.hidden }), t(worker.hidden ? "workers.shown" : "workers.hidden", { name: worker.worker_id }));
  const drain = (body) => change(() => post(`${path}/drain`, body), t("workers.drained", { name: worker.worker_id }));
  const cell = (name, content) => html`<td class=${name} data-label=${t(`workers.column.${name}`)}>${content}</td>`;
  const troubled = isHere(worker) && worker.trouble;
  return html`<tr data-worker=${worker.worker_id} class=${troubled ? "troubled" : ""}>
    ${cell("state", html`<${State} worker=${worker} />`)}
    <th scope="row" class="name" title=${worker.host ? `${worker.host} · pid ${worker.pid} · ${worker.version}` : ""}>${worker.worker_id}${worker.existing_system && html`<small class="note" title=${t("workers.existing.text")}>${t("workers.existing")}</small>`}</th>
    ${cell("tags", (worker.tags ?? []).map((tag) => html`<a key=${tag} class="chip" href=${link("/runs", { tag })}>${tag}</a> `))}
    ${cell("slots", html`<${Slots} worker=${worker} />`)}
    ${cell("runs", html`<${Runs} worker=${worker} />`)}
    ${cell("memory", size(worker.memory_bytes))}
    ${cell("cpu", worker.cpu_percent === null || worker.cpu_percent === undefined ? NONE : `${number(Math.round(worker.cpu_percent))} %`)}
    ${cell("gpus", html`<${Gpus} gpus=${worker.gpus} />`)}
    ${cell("seen", html`<${Ago} at=${worker.last_seen_at} />`)}
    ${cell("wheels", html`<${Wheels} sync=${worker.wheel_sync} />`)}
    ${allows("operator") && html`<td class="acts">
      ${isHere(worker) && !worker.draining && !worker.existing_system && html`<button type="button" aria-label=${t("workers.drain.of", { name: worker.worker_id })} onClick=${() => setAsking(true)}>${t("workers.drain")}</button>`}
      <button type="button" aria-label=${t(worker.hidden ? "workers.show.of" : "workers.hide.of", { name: worker.worker_id })} onClick=${hide}>${t(worker.hidden ? "workers.show" : "workers.hide")}</button>
      ${asking && html`<${ReasonDialog} title=${t("workers.drain.of", { name: worker.worker_id })} text=${t("workers.drain.text")} action=${t("workers.drain")}
        onYes=${drain} onClose=${() => setAsking(false)} />`}
    </td>`}
  </tr>
  ${troubled && html`<${TroubleRow} worker=${worker} columns=${COLUMNS.length + (allows("operator") ? 1 : 0)} />`}`;
}
