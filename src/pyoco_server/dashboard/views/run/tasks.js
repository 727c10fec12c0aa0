// The tasks of a run, and what is known of each.

/** Give a task's status as a reader sees it: one of a branch that was not taken is skipped, and what a failure kept from starting was not cancelled by anybody. */
export function taskStatus(run, name) {
  if ((run.skipped_tasks ?? []).includes(name)) return "SKIPPED";
  const status = run.tasks?.[name] ?? "PENDING";
  const ended = run.status === "FAILED" && ["CANCELLED", "PENDING"].includes(status);
  return ended && !recordOf(run, name).started_at ? "NOT_RUN" : status;
}

/** The names of the tasks in the order of the graph, then those that it does not name. */
export function taskNames(run, graph) {
  const drawn = (graph?.nodes ?? []).filter((node) => node.kind === "task").map((node) => node.name);
  return [...new Set([...drawn, ...Object.keys(run.tasks ?? {})])];
}

/** The record of a task; empty while it has none. */
export function recordOf(run, name) {
  return run.task_records?.[name] ?? {};
}

/** The task that a run failed of: the first that failed with an error. */
export function culprit(run, graph) {
  const failed = taskNames(run, graph).filter((name) => run.tasks?.[name] === "FAILED");
  return failed.find((name) => recordOf(run, name).exception) ?? failed.find((name) => recordOf(run, name).error) ?? failed[0] ?? null;
}

/** The task that a reader most likely wants to see. */
export function interesting(run, graph) {
  return (run.status === "FAILED" && culprit(run, graph)) || taskNames(run, graph).find((name) => run.tasks?.[name] === "RUNNING") || null;
}
