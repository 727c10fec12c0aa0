// The lines of a run's log as they come; the last few thousand are kept.
import { signal } from "../../html.js";
import { pause, serverEvents } from "../../sse.js";

const KEPT = 3000;
const COLOURS = /\u001b\[[0-9;?]*[A-Za-z]/g;

/** What a terminal shows of a line that was rewritten; once all of its states were stored. */
function lastState(text) {
  return text.includes("\r") ? (text.split("\r").findLast((state) => state.trim()) ?? "") : text;
}

function shown(line) {
  return lastState(line.text).replace(COLOURS, "");
}

export class LogFeed {
  constructor(runId, { task, stream }) {
    this.path = `/runs/${encodeURIComponent(runId)}/logs`;
    this.query = { follow: "true", tail: KEPT, task, stream };
    this.lines = signal([]);
    /** What is to be seen behind them and may change: progress bars, prompts, the end of a log that is full. */
    this.live = signal([]);
    this.dropped = signal(0);
    /** "connecting", "live", "away" or "ended". */
    this.state = signal("connecting");
    this.error = signal(null);
    this.last = 0;
    this.stopped = new AbortController();
  }

  stop() {
    this.stopped.abort();
  }

  async follow() {
    let lastId = null;
    for (let tries = 0; !this.stopped.signal.aborted; tries += 1) {
      try {
        for await (const event of serverEvents(this.path, { query: this.query, lastId, signal: this.stopped.signal })) {
          tries = 0;
          lastId = event.id ?? lastId;
          if (this.state.value !== "live") this.state.value = "live";
          if (event.name === "log") this.add(event.data.lines);
          if (event.data.live) this.live.value = event.data.live.map((line, at) => ({ ...line, text: shown(line), id: `live-${at}` }));
          if (event.name === "end") return void ((this.live.value = []), (this.state.value = "ended"));
        }
      } catch (error) {
        if (this.stopped.signal.aborted) return;
        if (error.status >= 400 && error.status < 500) return void ((this.error.value = error), (this.state.value = "ended"));
      }
      this.state.value = "away";
      await pause(tries);
    }
  }

  add(lines) {
    if (!lines.length) return;
    const all = [...this.lines.value];
    for (const line of lines) {
      const text = shown(line);
      const before = all.at(-1);
      if (before?.open && before.task === line.task && before.stream === line.stream)
        all[all.length - 1] = { ...before, text: before.text + text, open: Boolean(line.continued) };
      else all.push({ ...line, text, open: Boolean(line.continued), id: (this.last += 1), attemptBegins: Boolean(before) && before.attempt !== line.attempt });
    }
    if (all.length > KEPT) this.dropped.value += all.length - KEPT;
    this.lines.value = all.slice(-KEPT);
  }
}
