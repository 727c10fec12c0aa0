// One run: who it is, why it stands where it stands, what its tasks did and printed.
import { html, useEffect, useMemo } from "../../html.js";
import { t } from "../../i18n.js";
import { useKeys } from "../../keyboard.js";
import { Empty, Trouble } from "../../parts/empty.js";
import { statusWord } from "../../parts/status.js";
import { go, link, place as now } from "../../router.js";
import { FlowGraph } from "./graph.js";
import { Gantt } from "./gantt.js";
import { Header } from "./header.js";
import { Life } from "./life.js";
import { LiveRun } from "./live.js";
import { Log } from "./log.js";
import { Source } from "./source.js";
import { TaskPanel } from "./task.js";
import { interesting, taskNames } from "./tasks.js";
import { Verdict } from "./verdict.js";

export function View({ id, query }) {
  const live = useMemo(() => new LiveRun(id), [id]);
  const shown = useMemo(() => ({ task: null }), [id]);
  useEffect(() => {
    live.start();
    return () => live.stop();
  }, [live]);
  const run = live.run.value;
  const graph = live.graph.value;
  const place = `/runs/${encodeURIComponent(id)}`;
  useEffect(() => {
    document.title = `${run ? `${statusWord(run.status)} · ` : ""}${id.slice(0, 8)} · pyoco-server`;
  }, [run?.status, id]);
  // What is seen of the tasks and of the log stands in the address; going through them is no step to go back by.
  const show = (changes) => go(place, { ...now.value.query, ...changes }, { replace: true });
  useTaskKeys(live, () => now.value.query.task ?? shown.task, (task) => show({ task }));
  if (!run) return live.error.value ? html`<${Missing} error=${live.error.value} onAgain=${() => live.read()} />` : html`<p class="loading">${t("loading")}</p>`;
  const names = taskNames(run, graph);
  shown.task = interesting(run, graph) ?? shown.task; // what was shown while it ran stays when it has ended
  const task = query.task === "-" ? null : (query.task ?? shown.task);
  const toLog = (name) => {
    show({ log: name });
    document.getElementById("log-title")?.scrollIntoView({ block: "start" });
  };
  return html`
    <nav class="crumbs"><a href=${link("/runs")}>${t("nav.runs")}</a> / <span>${id.slice(0, 13)}</span></nav>
    ${live.error.value && html`<${Trouble} error=${live.error.value} onAgain=${() => live.read()} />`}
    <${Header} run=${run} reruns=${live.reruns.value} letters=${live.letters.value} />
    <${Life} run=${run} />
    <${Verdict} run=${run} graph=${graph} why=${live.why.value} onTask=${(name) => show({ task: name })} />
    ${names.length > 0 && html`<section class="tasks" aria-label=${t("run.tasks")}>
      <div class="drawn"><${FlowGraph} run=${run} graph=${graph} task=${task} onTask=${(name) => show({ task: name })} />
        <${Gantt} run=${run} graph=${graph} task=${task} onTask=${(name) => show({ task: name })} /></div>
      <${TaskPanel} run=${run} name=${task} onLog=${toLog} onClose=${() => show({ task: "-" })} />
    </section>`}
    <${Log} runId=${id} tasks=${names} task=${query.log ?? ""} onTask=${(name) => show({ log: name })} />
    <${Source} run=${run} hasFlow=${Boolean(run.workflow_yaml_sha256)} />`;
}

function Missing({ error, onAgain }) {
  if (error.code === "run_not_found")
    return html`<${Empty} title=${t("run.missing.title")} text=${t("run.missing.text")}><p><a href=${link("/runs")}>${t("run.missing.back")}</a></p></${Empty}>`;
  return html`<${Trouble} error=${error} onAgain=${onAgain} />`;
}

function useTaskKeys(live, taskNow, select) {
  const step = (by) => {
    const names = live.run.peek() ? taskNames(live.run.peek(), live.graph.peek()) : [];
    const at = names.indexOf(taskNow());
    const next = names[Math.max(0, Math.min(names.length - 1, at < 0 ? 0 : at + by))];
    if (next) select(next);
  };
  useKeys(
    useMemo(() => [
      ["j", "keys.nextTask", () => step(1)],
      ["k", "keys.taskBefore", () => step(-1)],
      ["u", "keys.toRuns", () => go("/runs")],
      ["Escape", "keys.escape", () => select("-")],
    ], [live]),
  );
}
