// The wheels by package, each version with what is known of it.
import { isHere } from "../workers/row.js";

/** Tell which workers that are there use wheels at all. */
export function usersOf(workers) {
  return workers.filter((worker) => isHere(worker) && worker.wheel_sync?.enabled);
}

/**
 * Give `[{ name, tenant, versions }]` by name, each version as `{ wheel, uploaded, workers, troubles }`, the newest
 * first: a version is only taken when it is newer than all of its package and tenant (null: all share it). `uploaded` is the event of the history that tells
 * who did it, if that is still there; `troubles` are `{ worker, reason }`.
 */
export function packagesOf(wheels, history, workers) {
  const users = usersOf(workers);
  const uploads = new Map();
  for (const event of history) {
    const place = placeOf(event.wheel_name, event.tenant_id);
    if (event.action === "upload" && !uploads.has(place)) uploads.set(place, event);
  }
  const packages = new Map();
  for (const wheel of [...wheels].sort((one, other) => other.modified - one.modified)) {
    const name = wheel.package ?? wheel.name;
    const place = placeOf(name, wheel.tenant_id);
    if (!packages.has(place)) packages.set(place, { name, tenant: wheel.tenant_id ?? null, versions: [] });
    packages.get(place).versions.push({ wheel, uploaded: uploads.get(placeOf(wheel.name, wheel.tenant_id)), ...usedBy(wheel, users) });
  }
  return [...packages].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, found]) => found);
}

function placeOf(name, tenant) {
  return JSON.stringify([name, tenant ?? ""]);
}

function usedBy(wheel, users) {
  const named = (list) => (list ?? []).find((one) => one.wheel_name === wheel.name);
  const told = ({ wheel_sync: sync }) => (wheel.tenant_id ? sync.tenants?.[wheel.tenant_id] ?? {} : sync);
  return {
    workers: users.filter((worker) => named(told(worker).installed_wheels)).map((worker) => worker.worker_id).sort(),
    troubles: users
      .map((worker) => ({ worker: worker.worker_id, left: named(told(worker).skipped_incompatible) }))
      .map(({ worker, left }) => ({ worker, reason: left?.text ?? left?.reason })) // older workers have no text
      .filter(({ reason }) => reason),
  };
}
