// The runs of one list: pages from the server, kept fresh by the stream. Rows never move by themselves: what is new
// waits until the reader asks for it.
import { batch, signal } from "../../html.js";
import { get } from "../../api.js";
import { serverTime } from "../../clock.js";
import { on } from "../../events.js";
import { runOf } from "../../parts/record.js";
import { askedOf, lets } from "./tokens.js";

const PAGE = 100;
const MOST_ROWS = 5000;
const MOST_FRESH = 1000;
const COUNT_MS = 3000;

export class RunFeed {
  constructor(query) {
    this.query = query;
    /** The rows, each a signal of its item, so that a change draws one row. */
    this.rows = signal([]);
    /** Runs that are not shown and would stand on top. */
    this.fresh = signal(new Set());
    this.state = signal("loading"); // "loading", "ready", "more" (fetching more), "failed"
    this.error = signal(null);
    this.more = signal(false);
    /** Counts by status of what the query lets through, or null: then those of all runs count. */
    this.counts = signal(null);
    this.known = new Map();
    this.stale = false; // whether what is on its way may have been read before the stream began
    this.early = []; // what the stream told while a page was on its way
    this.cursor = null;
    this.request = null;
    this.ends = [];
  }

  start() {
    this.ends = [on("reset", () => this.reload()), on("runs", (news) => this.take(news)), on("counts", () => this.count())];
    this.load();
  }

  /** Read the first page again; one that is on its way is shown first. */
  reload() {
    if (this.state.value === "loading") this.stale = true;
    else this.load();
  }

  stop() {
    for (const end of this.ends) end();
    this.request?.abort();
    clearTimeout(this.counting);
  }

  /** Read the first page. */
  async load() {
    this.stale = false;
    this.count(0);
    await this.fetch("loading", "", (items) => {
      this.known = new Map(items.map((item) => [item.run_id, signal(item)]));
      this.fresh.value = new Set();
      this.rows.value = [...this.known.values()];
    });
  }

  /** Read the next page, unless that goes on already or there is none. */
  async next() {
    if (this.state.value !== "ready" || !this.more.value) return;
    await this.fetch("more", this.cursor, (items) => {
      const added = items.filter((item) => !this.known.has(item.run_id));
      for (const item of added) this.known.set(item.run_id, signal(item));
      this.rows.value = [...this.rows.value, ...added.map((item) => this.known.get(item.run_id))];
    });
  }

  async fetch(state, cursor, use) {
    this.request?.abort();
    const request = (this.request = new AbortController());
    this.state.value = state;
    try {
      const asked = { ...askedOf(this.query, serverTime()), limit: PAGE };
      const page = await get(`/runs?cursor=${encodeURIComponent(cursor)}`, asked, request.signal); // a cursor makes it a page
      batch(() => {
        use(page.items.map(runOf));
        this.cursor = page.next_cursor;
        this.more.value = page.next_cursor !== null && this.rows.value.length < MOST_ROWS;
        this.state.value = "ready";
        this.error.value = null;
        for (const news of this.early.splice(0)) this.take(news);
      });
      if (this.stale) await this.load();
    } catch (error) {
      if (request.signal.aborted) return;
      if (this.stale) return void this.load();
      this.error.value = error;
      this.state.value = "failed";
    }
  }

  /** Take in what the stream tells. */
  take(news) {
    if (this.state.value === "loading" || this.state.value === "more") this.early.push(news);
    else this.mix(news);
  }

  mix({ items, removed }) {
    batch(() => {
      const fresh = new Set(this.fresh.value);
      const first = !this.rows.value.length;
      for (const item of items.map(runOf)) {
        const row = this.known.get(item.run_id);
        if (!row) {
          if (lets(this.query, item)) fresh.add(item.run_id);
          else fresh.delete(item.run_id);
        } else if (item.updated_at >= row.peek().updated_at) {
          row.value = item;
        }
      }
      for (const runId of removed) {
        fresh.delete(runId);
        const row = this.known.get(runId);
        if (row) row.value = { ...row.peek(), removed: true };
      }
      if (first && fresh.size) this.load(); // there is nothing that could jump
      else if (fresh.size !== this.fresh.value.size && fresh.size <= MOST_FRESH) this.fresh.value = fresh;
    });
  }

  /** Count what the query lets through, at most every few seconds. */
  count(ms = COUNT_MS) {
    const filters = { ...askedOf(this.query, serverTime()), status: null };
    if (!Object.values(filters).some(Boolean)) {
      this.counts.value = null;
      return;
    }
    if (this.counting && ms) return;
    clearTimeout(this.counting);
    this.counting = setTimeout(async () => {
      this.counting = null;
      this.counts.value = await get("/runs/counts", filters, this.request?.signal).catch(() => this.counts.value);
    }, ms);
  }
}
