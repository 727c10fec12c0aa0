// What can be done with a run.
import { post } from "../../api.js";

export function cancelRun(runId) {
  return post(`/runs/${encodeURIComponent(runId)}/cancel`, {});
}

export function rerunRun(runId) {
  return post(`/runs/${encodeURIComponent(runId)}/rerun`);
}
