// The workers as the server tells them: read once, then kept fresh by the stream.
import { signal } from "../../html.js";
import { get } from "../../api.js";
import { connection, on } from "../../events.js";

const MOST = 500;

export class WorkerFeed {
  constructor() {
    this.workers = signal(null); // by id; null until they have been read
    this.error = signal(null);
    this.natsUrl = null; // for the command that starts the first one
    this.request = null;
    this.ends = [];
  }

  start() {
    this.ends = [on("reset", () => this.load()), on("workers", (news) => this.take(news))];
    if (connection.value !== "connecting") this.load();
  }

  stop() {
    for (const end of this.ends) end();
    this.request?.abort();
  }

  async load() {
    this.request?.abort();
    const request = (this.request = new AbortController());
    try {
      const found = await get("/workers", { scope: "all", include_hidden: true, limit: MOST }, request.signal);
      if (!found.length) this.natsUrl = (await get("/overview", {}, request.signal)).nats_url;
      this.workers.value = new Map(found.map((worker) => [worker.worker_id, worker]));
      this.error.value = null;
    } catch (error) {
      if (!request.signal.aborted) this.error.value = error;
    }
  }

  /** Take in what the stream or an answer tells; both may leave fields out. */
  take({ items, removed = [] }) {
    if (!this.workers.value) return;
    const next = new Map(this.workers.value);
    for (const item of items) next.set(item.worker_id, { ...next.get(item.worker_id), ...item });
    for (const workerId of removed) next.delete(workerId);
    this.workers.value = next;
  }
}
