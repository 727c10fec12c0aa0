// What can be done with runs, one or many.
import { post } from "../../api.js";
import { t, tn } from "../../i18n.js";
import { say } from "../../parts/announce.js";

const AT_ONCE = 4;

export function cancelRun(runId) {
  return post(`/runs/${encodeURIComponent(runId)}/cancel`, {});
}

export function rerunRun(runId) {
  return post(`/runs/${encodeURIComponent(runId)}/rerun`);
}

/** Do something with each run, a few at a time, and say how it went. */
export async function forEach(runIds, act, doneKey) {
  const left = [...runIds];
  const failed = [];
  const work = async () => {
    for (let runId = left.shift(); runId !== undefined; runId = left.shift()) {
      try {
        await act(runId);
      } catch (error) {
        failed.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  const good = runIds.length - failed.length;
  if (good) say(tn(doneKey, good));
  if (failed.length) {
    const reasons = [...new Set(failed.map((error) => (error.status === 0 ? t("error.unreachable") : error.message)))];
    say(tn("bulk.failed", failed.length), "bad", reasons.slice(0, 3).join(" · "));
  }
}
