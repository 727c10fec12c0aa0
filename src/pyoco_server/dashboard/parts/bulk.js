// The same done with many things.
import { tn } from "../i18n.js";
import { say } from "./announce.js";
import { told } from "./problem.js";

const AT_ONCE = 4;
const TOLD = 3;

/** Do something with each, a few at a time, and say how it went. Gives `{ done, failed }`: ids, and errors by id. */
export async function forEach(ids, act, doneKey) {
  const left = [...ids];
  const done = [];
  const failed = new Map();
  const work = async () => {
    for (let id = left.shift(); id !== undefined; id = left.shift()) {
      try {
        await act(id);
        done.push(id);
      } catch (error) {
        failed.set(id, error);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (done.length) say(tn(doneKey, done.length));
  if (failed.size) say(tn("bulk.failed", failed.size), "bad", reasonsOf([...failed.values()]));
  return { done, failed };
}

function reasonsOf(errors) {
  const reasons = [...new Set(errors.map(told))];
  const more = reasons.length - TOLD;
  return reasons.slice(0, TOLD).join(" · ") + (more > 0 ? ` · ${tn("bulk.more", more)}` : "");
}
