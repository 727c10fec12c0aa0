// Who the run is: its status, where it ran, how long it took, and what can be done with it.
import { html, useState } from "../../html.js";
import { has, t } from "../../i18n.js";
import { say, sayError } from "../../parts/announce.js";
import { clientCommand } from "../../parts/commands.js";
import { CopyButton, copyText } from "../../parts/copy.js";
import { Icon } from "../../parts/icon.js";
import { Isolation } from "../../parts/isolation.js";
import { Status, hasEnded } from "../../parts/status.js";
import { Duration, Time } from "../../parts/time.js";
import { go, link } from "../../router.js";
import { allows } from "../../session.js";
import { rerunRun } from "../runs/actions.js";
import { CancelDialog } from "./cancel.js";

function runLink(runId) {
  return html`<a href=${link(`/runs/${encodeURIComponent(runId)}`)}><code>${runId.slice(0, 13)}</code></a>`;
}

function endReason(run) {
  return has(`end.${run.end_reason}`) ? t(`end.${run.end_reason}`) : run.end_reason;
}

function Actions({ run }) {
  const [asking, setAsking] = useState(false);
  const [busy, setBusy] = useState(false);
  const rerun = async () => {
    setBusy(true);
    try {
      const made = await rerunRun(run.run_id);
      say(t("run.rerunMade"));
      go(`/runs/${encodeURIComponent(made.run_id)}`);
    } catch (error) {
      sayError(error);
    } finally {
      setBusy(false);
    }
  };
  return html`<div class="actions">
    ${allows("member") && (!hasEnded(run.status) || run.unreadable) && html`<button type="button" disabled=${run.status === "CANCELLING"} onClick=${() => setAsking(true)}><${Icon} name="stop" />${t("cancel")}</button>`}
    ${allows("member") && html`<button type="button" disabled=${busy} onClick=${rerun}><${Icon} name="again" />${t("rerun")}</button>`}
    <button type="button" onClick=${() => copyText(clientCommand(["get", run.run_id, "--records"]))}><${Icon} name="copy" />${t("copyCommand")}</button>
    ${asking && html`<${CancelDialog} runId=${run.run_id} onClose=${() => setAsking(false)} />`}
  </div>`;
}

function Fact({ name, children }) {
  return html`<div><dt>${t(name)}</dt><dd>${children}</dd></div>`;
}

export function Header({ run, reruns, letters }) {
  const ended = hasEnded(run.status);
  const firstStart = run.queue_wait_ms !== null && run.queue_wait_ms !== undefined;
  const most = run.max_attempts ? t("run.attemptOf", { n: run.attempt, most: run.max_attempts }) : run.attempt;
  const tags = (run.tags ?? []).filter((tag) => tag !== run.tag);
  return html`<header class="run-head">
    <div class="title"><h1>${run.flow_name}</h1><${Status} of=${run.status} />
      <span class="run-id"><code>${run.run_id}</code><${CopyButton} text=${run.run_id} label=${t("run.copyId")} /></span>
      <${Actions} run=${run} /></div>
    <dl class="facts">
      ${ended && run.end_reason && run.end_reason !== "completed" && html`<${Fact} name="run.endReason">${endReason(run)}</${Fact}>`}
      <${Fact} name="column.tag"><a class="chip" href=${link("/runs", { tag: run.tag })}>${run.tag}</a>${tags.map((tag) => html` <span class="chip">${tag}</span>`)}</${Fact}>
      <${Fact} name="column.worker">${run.worker_id ? html`<a href=${link("/runs", { worker: run.worker_id })}>${run.worker_id}</a>` : t("run.noWorker")}
        ${!ended && run.worker_id && run.worker_alive === false && html` <span class="note"><${Icon} name="warning" /> ${t("run.workerLost")}</span>`}</${Fact}>
      ${run.attempt > 0 && html`<${Fact} name="run.attempt">${most}</${Fact}>`}
      <${Fact} name="run.submitted"><${Time} at=${run.submitted_at} /></${Fact}>
      <${Fact} name="column.waited">${firstStart ? html`<${Duration} seconds=${run.queue_wait_ms / 1000} />` : html`<${Duration} from=${run.submitted_at} to=${ended ? run.end_time : null} />`}</${Fact}>
      ${run.start_time && html`<${Fact} name="column.ran"><${Duration} from=${run.start_time} to=${ended ? run.end_time : null} /></${Fact}>`}
      ${run.rerun_of && html`<${Fact} name="run.rerunOf">${runLink(run.rerun_of)}</${Fact}>`}
      ${reruns.length > 0 && html`<${Fact} name="run.reruns">${reruns.map((one) => html`${runLink(one.run_id)} `)}</${Fact}>`}
      ${letters.length > 0 && html`<${Fact} name="run.letter">${letters.map((id) => html`<a key=${id} href=${link("/deadletters", { letter: id })}>#${String(id)}</a> `)}</${Fact}>`}
      ${run.tenant_id && html`<${Fact} name="run.tenant">${run.tenant_id}</${Fact}>`}
      ${run.isolation && html`<${Fact} name="isolation"><${Isolation} of=${run.isolation} /></${Fact}>`}
      ${run.environment && html`<${Fact} name="run.environment"><code>${run.environment.slice(0, 12)}</code></${Fact}>`}
    </dl>
  </header>`;
}
