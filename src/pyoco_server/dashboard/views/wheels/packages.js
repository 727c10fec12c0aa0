// The wheels by package, each version with what is known of it.
import { isHere } from "../workers/row.js";

/** Tell which workers that are there use wheels at all. */
export function usersOf(workers) {
  return workers.filter((worker) => isHere(worker) && worker.wheel_sync?.enabled);
}

/**
 * Give `[{ name, versions }]` by name, each version as `{ wheel, uploaded, workers, troubles }`, the newest first: a
 * version is only taken when it is newer than all of its package. `uploaded` is the event of the history that tells
 * who did it, if that is still there; `troubles` are `{ worker, reason }`.
 */
export function packagesOf(wheels, history, workers) {
  const users = usersOf(workers);
  const uploads = new Map();
  for (const event of history) if (event.action === "upload" && !uploads.has(event.wheel_name)) uploads.set(event.wheel_name, event);
  const packages = new Map();
  for (const wheel of [...wheels].sort((one, other) => other.modified - one.modified)) {
    const name = wheel.package ?? wheel.name;
    if (!packages.has(name)) packages.set(name, []);
    packages.get(name).push({ wheel, uploaded: uploads.get(wheel.name), ...usedBy(wheel, users) });
  }
  return [...packages].map(([name, versions]) => ({ name, versions })).sort((one, other) => (one.name < other.name ? -1 : 1));
}

function usedBy(wheel, users) {
  const named = (list) => (list ?? []).find((one) => one.wheel_name === wheel.name);
  return {
    workers: users.filter((worker) => named(worker.wheel_sync.installed_wheels)).map((worker) => worker.worker_id).sort(),
    troubles: users
      .map((worker) => ({ worker: worker.worker_id, reason: named(worker.wheel_sync.skipped_incompatible)?.reason }))
      .filter(({ reason }) => reason),
  };
}
