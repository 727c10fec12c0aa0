// One run as it is now: read when the stream says that it has changed, and never by the clock.
import { batch, signal } from "../../html.js";
import { get } from "../../api.js";
import { on } from "../../events.js";
import { language } from "../../preferences.js";
import { runOf } from "../../parts/record.js";
import { hasEnded } from "../../parts/status.js";

const PACE_MS = 500; // shortest time between two reads
const LETTERS_MS = 3000; // shortest time between two looks for its dead letter
const WHY_MS = 10000; // a run that stands still says so without changing

export class LiveRun {
  constructor(runId) {
    this.runId = runId;
    this.run = signal(null);
    this.graph = signal(null);
    this.why = signal(null);
    this.reruns = signal([]);
    /** The id of the dead letter that it left, if that is still there. */
    this.letters = signal([]);
    this.error = signal(null);
    this.path = `/runs/${encodeURIComponent(runId)}`;
    this.timer = null;
    this.readAt = -Infinity;
    this.lettersReadAt = -Infinity;
    this.stopped = new AbortController();
  }

  start() {
    this.ends = [
      on("reset", () => this.read()),
      on("runs", ({ items, removed }) => {
        if (items.some((item) => item.run_id === this.runId) || removed.includes(this.runId)) this.soon();
        if (items.some((item) => item.rerun_of === this.runId)) this.readReruns();
      }),
      on("letters", () => this.readLettersSoon()),
      on("workers", ({ items }) => {
        const run = this.run.value;
        const worker = run && !hasEnded(run.status) && items.find((item) => item.worker_id === run.worker_id);
        if (worker && worker.state !== run.worker_state) this.soon(); // a worker that is lost changes no record
      }),
    ];
    this.asking = setInterval(() => document.hidden || this.ask(), WHY_MS);
    this.read();
  }

  stop() {
    for (const end of this.ends) end();
    clearInterval(this.asking);
    clearTimeout(this.timer);
    clearTimeout(this.letterTimer);
    this.stopped.abort();
  }

  /** Read, but not more often than now and then. */
  soon() {
    this.timer ??= setTimeout(() => this.read(), Math.max(0, this.readAt + PACE_MS - performance.now()));
  }

  async read() {
    clearTimeout(this.timer);
    this.timer = null;
    this.readAt = performance.now();
    try {
      const [told, graph] = await Promise.all([
        get(this.path, { include: "records" }, this.stopped.signal),
        this.graph.value?.source ? this.graph.value : get(`${this.path}/graph`, {}, this.stopped.signal),
      ]);
      const run = runOf(told);
      batch(() => {
        // Answers may overtake each other.
        if (!this.run.value || run.updated_at >= this.run.value.updated_at) this.run.value = run;
        this.graph.value = graph;
        this.error.value = null;
      });
      await Promise.all([this.ask(), this.readReruns(), this.readLetters()]);
    } catch (error) {
      if (!this.stopped.signal.aborted) this.error.value = error;
    }
  }

  /** Ask why it does not move, or how it ended; that it runs or has completed is seen anyway. */
  async ask() {
    const run = this.run.value;
    const goesWithout = run?.status === "COMPLETED" && !run.unreadable;
    if (!run || goesWithout || (this.why.value && hasEnded(run.status) && this.why.value.of === asked(run))) {
      if (goesWithout) this.why.value = null;
      return;
    }
    const of = asked(run);
    const why = await get(`${this.path}/why`, { lang: language.value }, this.stopped.signal).catch(() => null);
    if (why && !this.stopped.signal.aborted) this.why.value = { ...why, of };
  }

  /** Letters may change all the time, and those of other runs mostly. */
  readLettersSoon() {
    this.letterTimer ??= setTimeout(() => {
      this.letterTimer = null;
      this.readLetters();
    }, Math.max(0, this.lettersReadAt + LETTERS_MS - performance.now()));
  }

  /** Only a run that failed leaves a dead letter, a moment after its end. */
  async readLetters() {
    if (this.run.value?.status !== "FAILED") return;
    this.lettersReadAt = performance.now();
    const found = await get("/dlq", { run_id: this.runId }, this.stopped.signal).catch(() => null);
    if (found) this.letters.value = found.map((letter) => letter.id);
  }

  async readReruns() {
    const found = await get("/runs", { rerun_of: this.runId, limit: 5 }, this.stopped.signal).catch(() => null);
    if (found) this.reruns.value = found.map(runOf);
  }
}

function asked(run) {
  return `${run.status} ${run.attempt} ${run.unreadable ?? ""} ${language.value}`;
}
