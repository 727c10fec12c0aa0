// Why the run does not move, or how it ended: the place in the code first, then what happened, then what to do.
import { html } from "../../html.js";
import { t } from "../../i18n.js";
import { CopyButton } from "../../parts/copy.js";
import { Icon } from "../../parts/icon.js";
import { look } from "../../parts/status.js";
import { culprit, recordOf } from "./tasks.js";

const MOVES = new Set(["running", "starting", "completed"]);
const COMMAND = /\b(pyoco-(?:worker|client|server)(?: [^\s,;。、]+)+)/;

/** Give the place of an exception as `file:line`. */
export function placeOf(exception) {
  return exception?.file ? `${exception.file}${exception.line ? `:${exception.line}` : ""}` : null;
}

export function Place({ exception }) {
  const place = placeOf(exception);
  if (!place) return null;
  return html`<p class="place"><code>${place}</code><${CopyButton} text=${place} />${exception.function && html` <span>${t("error.in", { name: exception.function })}</span>`}</p>`;
}

export function Traceback({ text }) {
  return text ? html`<details class="traceback"><summary>${t("error.traceback")}</summary><pre tabindex="0">${text}</pre></details>` : null;
}

export function Verdict({ run, graph, why, onTask }) {
  if (run.unreadable) return html`<section class="verdict other" aria-label=${t("run.why")}>
    <h2><${Icon} name="warning" /><span>${why?.code === "unreadable" ? why.message : `${t("run.unreadable")}: ${run.unreadable}`}</span></h2><${Hint} text=${why?.hint} />
  </section>`;
  if (run.status === "FAILED") return html`<${Failure} run=${run} graph=${graph} why=${why} onTask=${onTask} />`;
  if (!why || why.status !== run.status || MOVES.has(why.code)) return null;
  return html`<section class="verdict ${look(run.status)}" aria-label=${t("run.why")}>
    <h2><${Icon} name=${run.status === "CANCELLED" ? "cancelled" : "warning"} />${why.message}</h2><${Hint} text=${why.hint} />
  </section>`;
}

function Failure({ run, graph, why, onTask }) {
  const task = culprit(run, graph);
  const record = task ? recordOf(run, task) : {};
  const exception = record.exception;
  const told = why?.code === "task_failed" && exception; // then everything stands here already
  const message = exception ? `${exception.class}: ${exception.message}` : (record.error ?? run.error ?? why?.message ?? "");
  return html`<section class="verdict failed" aria-label=${t("run.why")}>
    <${Place} exception=${exception} />
    <h2><${Icon} name="failed" /><span>${message}</span></h2>
    ${why && !told && html`<p>${why.message}</p>`}
    ${!told && html`<${Hint} text=${why?.hint} />`}
    ${task && html`<p><button type="button" class="link" onClick=${() => onTask(task)}>${t("error.task", { name: task })}</button></p>`}
    <${Traceback} text=${record.traceback} />
  </section>`;
}

function Hint({ text }) {
  if (!text) return null;
  const command = COMMAND.exec(text)?.[1];
  return html`<p class="hint">${text}${command && html`<${CopyButton} text=${command} label=${t("copyCommand")} />`}</p>`;
}
