// How everything stands, as the server sums it up: asked again when the stream says that something has changed.
import { batch, signal } from "../../html.js";
import { get } from "../../api.js";
import { connection, on } from "../../events.js";

const PACE_MS = 2000;
const ANEW_MS = 10000; // the last hour goes on while nothing happens

export class OverviewFeed {
  constructor() {
    this.told = signal(null); // null until it has been read
    this.error = signal(null);
    this.states = new Map(); // of the workers, to tell a change from a heartbeat
    this.request = null;
    this.readAt = 0;
    this.ends = [];
  }

  start() {
    this.ends = [on("reset", () => this.load()), on("counts", () => this.soon()), on("workers", (news) => this.hear(news)), on("heartbeat", (news) => this.check(news))];
    this.clock = setInterval(() => !document.hidden && this.soon(), ANEW_MS);
    if (connection.value !== "connecting") this.load();
  }

  stop() {
    for (const end of this.ends) end();
    clearInterval(this.clock);
    clearTimeout(this.waiting);
    this.request?.abort();
  }

  /** Read it now, or as soon as its pace allows. */
  soon() {
    if (this.waiting || !["live", "back"].includes(connection.value)) return; // back again, the stream tells of the counts
    this.waiting = setTimeout(() => this.load(), Math.max(0, this.readAt + PACE_MS - performance.now()));
  }

  hear({ items, removed = [] }) {
    let changed = removed.length > 0;
    for (const { worker_id: id, state, draining, tags } of items) {
      const is = `${state} ${draining} ${tags}`;
      changed ||= this.states.get(id) !== is;
      this.states.set(id, is);
    }
    for (const id of removed) this.states.delete(id);
    if (changed) this.soon();
  }

  check({ nats_up: up }) {
    if (this.told.value && this.told.value.nats_up !== up) this.soon();
  }

  async load() {
    clearTimeout(this.waiting);
    this.waiting = null;
    this.readAt = performance.now();
    this.request?.abort();
    const request = (this.request = new AbortController());
    try {
      const told = await get("/overview", {}, request.signal);
      batch(() => {
        this.told.value = told;
        this.error.value = null;
      });
    } catch (error) {
      if (!request.signal.aborted) this.error.value = error;
    }
  }
}
