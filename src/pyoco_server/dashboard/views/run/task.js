// One task: what it got, what it gave, and what went wrong.
import { html } from "../../html.js";
import { now } from "../../clock.js";
import { t } from "../../i18n.js";
import { Status } from "../../parts/status.js";
import { Time, duration } from "../../parts/time.js";
import { Icon } from "../../parts/icon.js";
import { Json } from "../../parts/value.js";
import { recordOf, taskStatus } from "./tasks.js";
import { Place, Traceback } from "./verdict.js";

function took(record, status) {
  if (record.duration_ms !== null && record.duration_ms !== undefined) return duration(record.duration_ms / 1000);
  return record.started_at && status === "RUNNING" ? duration(Math.floor(now.value) - record.started_at) : null;
}

function Trouble({ record }) {
  const { exception, error } = record;
  if (!error && !exception) return null;
  return html`<div class="trouble-box">
    <${Place} exception=${exception} />
    <p class="what-happened">${exception ? `${exception.class}: ${exception.message}` : error}</p>
    <${Traceback} text=${record.traceback} />
  </div>`;
}

function Retry({ record }) {
  if (!record.tries || record.tries < 2) return null;
  const waits = record.retry_at && record.retry_at > now.value;
  return html`<p class="retry">${t("task.try", { n: record.try ?? 1, most: record.tries })}
    ${waits && html` · ${t("task.retryIn", { time: duration(record.retry_at - now.value) })}`}
    ${record.last_error && html`<br /><small>${t("task.lastError", { error: record.last_error })}</small>`}</p>`;
}

export function TaskPanel({ run, name, onLog, onClose }) {
  if (!name || !(name in (run.tasks ?? {}))) return html`<aside class="panel"><p class="none">${t("task.choose")}</p></aside>`;
  const status = taskStatus(run, name);
  const record = recordOf(run, name);
  const length = took(record, status);
  return html`<aside class="panel" aria-label=${t("task.panel", { name })}>
    <header><h2>${name}</h2><${Status} of=${status} />
      <button type="button" class="plain" aria-label=${t("close")} onClick=${onClose}><${Icon} name="close" /></button></header>
    <p class="times">${record.started_at ? html`<${Time} at=${record.started_at} />` : t(status === "SKIPPED" ? "task.skipped" : "task.notStarted")}${length && html` · ${length}`}
      <button type="button" class="link" onClick=${() => onLog(name)}>${t("task.log")}</button></p>
    <${Retry} record=${record} />
    <${Trouble} record=${record} />
    ${record.inputs && Object.keys(record.inputs).length > 0 && html`<${Json} name=${t("task.inputs")} of=${record.inputs} />`}
    ${record.output !== undefined && record.output !== null && html`<${Json} name=${t("task.output")} of=${record} field="output" />`}
    ${record.artifacts && Object.keys(record.artifacts).length > 0 && html`<${Json} name=${t("task.artifacts")} of=${record.artifacts} />`}
    ${run.task_records_truncated && html`<p><small>${t("task.truncated")}</small></p>`}
  </aside>`;
}
