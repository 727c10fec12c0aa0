// The entries of the audit trail that an address asks for, page by page.
import { batch, signal } from "../../html.js";
import { get } from "../../api.js";

const PAGE = 100;
const MOST_ROWS = 2000;

export const FILTERS = ["action", "outcome", "target", "actor"];

export function askedOf(query) {
  return Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));
}

export class AuditFeed {
  constructor(query) {
    this.query = query;
    this.entries = signal([]);
    this.cursor = signal(null);
    this.state = signal("loading"); // "loading", "ready", "failed"
    this.error = signal(null);
    this.stopped = new AbortController();
  }

  stop() {
    this.stopped.abort();
  }

  get full() {
    return this.entries.value.length >= MOST_ROWS;
  }

  load() {
    return this.fetch("", []);
  }

  async next() {
    if (this.state.value === "ready" && this.cursor.value !== null && !this.full) await this.fetch(this.cursor.value, this.entries.value);
  }

  async fetch(cursor, before) {
    this.state.value = "loading";
    try {
      const page = await get("/audit", { ...askedOf(this.query), cursor, limit: PAGE }, this.stopped.signal);
      batch(() => {
        this.entries.value = [...before, ...page.items];
        this.cursor.value = page.next_cursor;
        this.state.value = "ready";
        this.error.value = null;
      });
    } catch (error) {
      if (this.stopped.signal.aborted) return;
      this.error.value = error;
      this.state.value = "failed";
    }
  }
}
