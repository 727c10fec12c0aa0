// The dead letters of one list: pages from the server, looked at again when the stream says that letters have changed.
// Rows never move by themselves: what is new waits, and what somebody else took out is struck through.
import { batch, signal } from "../../html.js";
import { get } from "../../api.js";
import { on } from "../../events.js";
import { moment, plain } from "../../parts/text.js";

const PAGE = 100;
const MOST_READ = 500;
const MOST_ROWS = 1000;
const PACE_MS = 700;

/** What GET /dlq is asked for an address. */
export function askedOf(query) {
  return { reason: query.reason, tag: query.tag };
}

/** Give a letter whose fields can be shown: other programs write letters too. */
export function readable(letter) {
  const texts = Object.fromEntries(
    ["reason", "error", "run_id", "flow_name", "worker_id", "subject", "end_reason", "tenant_id"].map((name) => [name, plain(letter, name)]),
  );
  const omitted = Array.isArray(letter.omitted) ? letter.omitted.map((_, at) => plain(letter.omitted, String(at))) : [];
  return { ...letter, ...texts, omitted, timestamp: moment(letter.timestamp), submitted_at: moment(letter.submitted_at) };
}

export class LetterFeed {
  constructor(query) {
    this.query = query;
    this.rows = signal([]);
    /** How many letters are not shown and would stand on top. */
    this.fresh = signal(0);
    /** Ids of rows that are no letters any more. */
    this.gone = signal(new Set());
    this.state = signal("loading"); // "loading", "ready", "more" (fetching more), "failed"
    this.error = signal(null);
    /** Where the next page begins; null at the end. */
    this.cursor = signal(null);
    /** Whether the last page was a whole one. A short one was searched for in vain as far as one request looks. */
    this.whole = true;
    this.stale = false;
    this.stopped = new AbortController();
  }

  start() {
    this.ends = [on("reset", () => this.load()), on("letters", () => this.soon())];
    this.load();
  }

  stop() {
    for (const end of this.ends) end();
    clearTimeout(this.timer);
    this.stopped.abort();
  }

  get full() {
    return this.rows.value.length >= MOST_ROWS;
  }

  read(limit, cursor) {
    return get(`/dlq?cursor=${cursor}`, { ...askedOf(this.query), limit }, this.stopped.signal); // a cursor makes it a page
  }

  load() {
    return this.fetch("loading", "", (items) => {
      this.rows.value = items;
      this.fresh.value = 0;
      this.gone.value = new Set();
    });
  }

  async next() {
    if (this.state.value !== "ready" || this.cursor.value === null || this.full) return;
    await this.fetch("more", this.cursor.value, (items) => {
      this.rows.value = [...this.rows.value, ...items];
    });
  }

  async fetch(state, cursor, use) {
    const asked = (this.asked = Symbol(state)); // the last one that was asked for counts
    this.state.value = state;
    try {
      const page = await this.read(PAGE, cursor);
      if (asked !== this.asked) return;
      batch(() => {
        use(page.items.map(readable));
        this.cursor.value = page.next_cursor;
        this.whole = page.items.length >= PAGE;
        this.state.value = "ready";
        this.error.value = null;
      });
      if (this.stale) this.soon();
    } catch (error) {
      if (this.stopped.signal.aborted || asked !== this.asked) return;
      this.error.value = error;
      this.state.value = "failed";
    }
  }

  /** Look again, but not more often than now and then. */
  soon() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.look();
    }, PACE_MS);
  }

  /** Look what has come and gone since the list was read. */
  async look() {
    this.stale = this.state.value === "loading" || this.state.value === "more";
    if (this.stale) return;
    if (!this.rows.value.length) return void this.load(); // there is nothing that could jump
    try {
      const page = await this.read(Math.min(MOST_READ, Math.max(PAGE, this.rows.value.length)), "");
      this.compare(page.items.map((item) => item.id), page.next_cursor === null ? 0 : Number(page.next_cursor));
    } catch (error) {
      if (!this.stopped.signal.aborted) this.error.value = error;
    }
  }

  /** `ids` are the letters that are there, of all from `covered` on. */
  compare(ids, covered) {
    const there = new Set(ids);
    const rows = this.rows.value;
    const gone = new Set(this.gone.value);
    for (const { id } of rows) if (id >= covered && !there.has(id)) gone.add(id);
    batch(() => {
      if (gone.size !== this.gone.value.size) this.gone.value = gone;
      this.fresh.value = ids.filter((id) => id > (rows[0]?.id ?? 0)).length;
      this.error.value = null;
    });
    if (rows.length && rows.every(({ id }) => gone.has(id))) this.load();
  }

  /** Leave rows out that the reader took out. */
  drop(ids) {
    const out = new Set(ids);
    this.rows.value = this.rows.value.filter(({ id }) => !out.has(id));
    if (!this.rows.value.length) this.load();
  }

  /** Strike rows out that somebody else was faster with. */
  strike(ids) {
    this.gone.value = new Set([...this.gone.value, ...ids]);
  }
}
