// The wheels, what happened to them, and the workers that use them; read again when the stream says that something
// of it has changed.
import { batch, signal } from "../../html.js";
import { get } from "../../api.js";
import { serverTime } from "../../clock.js";
import { connection, on } from "../../events.js";

const MOST_EVENTS = 500;
const MOST_WORKERS = 500;
const PACE_MS = 700;
const CLOCKS_APART = 5; // seconds that a worker's clock may be wrong

export class WheelFeed {
  constructor() {
    this.wheels = signal(null); // null until they have been read
    this.history = signal([]);
    this.workers = signal([]);
    this.error = signal(null);
    this.changedAt = 0; // when the wheels were last read, by the server's clock
    this.wanted = new Set();
    this.stopped = new AbortController();
  }

  start() {
    this.ends = [
      on("reset", () => this.soon("wheels", "workers")),
      on("wheels", () => this.soon("wheels")),
      on("workers", ({ items, removed }) => {
        if (removed.length || items.some((item) => this.isNews(item))) this.soon("workers");
      }),
    ];
    if (connection.value !== "connecting") this.load();
  }

  stop() {
    for (const end of this.ends) end();
    clearTimeout(this.timer);
    this.stopped.abort();
  }

  /** The stream leaves out what each worker has of the wheels: when that may have changed, it is read. */
  isNews(item) {
    const known = this.workers.value.find((worker) => worker.worker_id === item.worker_id);
    const seen = (sync) => [sync?.enabled, sync?.environment, sync?.last_result, sync?.outcome, sync?.last_error];
    const own = (sync) => Object.entries(sync?.tenants ?? {}).map(([tenant, one]) => [tenant, seen({ ...one, enabled: true })]).sort();
    const told = ({ state, wheel_sync: sync }) => JSON.stringify([state, seen(sync), own(sync)]);
    const synced = ({ wheel_sync: sync }) => sync?.last_sync_at ?? 0;
    // That a wheel does not suit a worker shows only in its list: it is read once the worker has looked at the change.
    return !known || told(known) !== told(item) || (synced(known) < this.changedAt + CLOCKS_APART && synced(item) > synced(known));
  }

  /** Read again, but not more often than now and then. */
  soon(...parts) {
    for (const part of parts) this.wanted.add(part);
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.load([...this.wanted.values()]);
    }, PACE_MS);
  }

  async load(parts = ["wheels", "workers"]) {
    this.wanted.clear();
    if (parts.includes("wheels")) this.changedAt = serverTime();
    const ask = (path, query) => get(path, query, this.stopped.signal);
    try {
      const [wheels, history, workers] = await Promise.all([
        parts.includes("wheels") ? ask("/wheels") : this.wheels.value,
        parts.includes("wheels") ? ask("/wheels/history", { limit: MOST_EVENTS }) : this.history.value,
        parts.includes("workers") ? ask("/workers", { scope: "all", include_hidden: true, limit: MOST_WORKERS }) : this.workers.value,
      ]);
      batch(() => {
        this.wheels.value = wheels;
        this.history.value = history;
        this.workers.value = workers;
        this.error.value = null;
      });
    } catch (error) {
      if (!this.stopped.signal.aborted) this.error.value = error;
    }
  }
}
