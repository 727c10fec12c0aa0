// A run's record where it enters the page. Other programs write records too, and some are damaged: whatever a field
// holds, views get of it what they count on, and null for the rest.
import { moment } from "./text.js";

const TEXTS = ["flow_name", "status", "tag", "tenant_id", "api_key_id", "worker_id", "worker_state", "error", "end_reason", "rerun_of", "isolation", "environment", "workflow_yaml_sha256", "cancel_reason", "cancel_requested_by", "unreadable"];
const TIMES = ["submitted_at", "start_time", "end_time", "heartbeat_at", "cancel_requested_at", "worker_heartbeat_at"];
const NUMBERS = ["max_attempts", "timeout_sec", "queue_wait_ms", "run_ms"];
const TASK_TEXTS = ["state", "error", "last_error", "traceback"];
const TASK_TIMES = ["started_at", "ended_at", "retry_at"];
const TASK_NUMBERS = ["duration_ms", "try", "tries"];
const EXCEPTION_TEXTS = ["class", "message", "file", "function"];

function text(value) {
  if (typeof value !== "string") return null;
  return value.toWellFormed ? value.toWellFormed() : value;
}

function number(value) {
  return Number.isFinite(value) && value >= 0 ? value : null;
}

function object(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
}

function texts(value) {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

/** Make each named field what `read` gives of it, where it is there. */
function mended(holder, names, read) {
  for (const name of names) if (name in holder) holder[name] = read(holder[name]);
}

function exceptionOf(told) {
  const found = object(told);
  if (!found) return null;
  const exception = { ...found, line: number(found.line) };
  for (const name of EXCEPTION_TEXTS) exception[name] = text(exception[name]) ?? (name === "class" || name === "message" ? "–" : null);
  return exception;
}

function taskRecordOf(told) {
  const record = { ...told };
  mended(record, TASK_TEXTS, text);
  mended(record, TASK_TIMES, moment);
  mended(record, TASK_NUMBERS, number);
  mended(record, ["exception"], exceptionOf);
  mended(record, ["inputs", "artifacts"], object);
  return record;
}

/** Give the values of an object by `read`, without those of which it gives null. */
function each(value, read) {
  const entries = Object.entries(object(value) ?? {}).map(([name, item]) => [name, read(item)]);
  return Object.fromEntries(entries.filter(([, item]) => item !== null));
}

/** Give a run, or an item of a list of runs, as views may count on it. */
export function runOf(told) {
  const run = { ...object(told), told };
  run.run_id = text(run.run_id) ?? "";
  mended(run, TEXTS, text);
  mended(run, TIMES, moment);
  mended(run, NUMBERS, number);
  mended(run, ["tags", "skipped_tasks"], texts);
  run.updated_at = moment(run.updated_at) ?? 0;
  run.attempt = number(run.attempt) ?? 0;
  run.flow_name ??= "–";
  if ("tasks" in run) run.tasks = each(run.tasks, text);
  if ("task_records" in run) run.task_records = each(run.task_records, (task) => object(task) && taskRecordOf(task));
  return run;
}
