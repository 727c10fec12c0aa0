// Which rows are selected; with shift a whole stretch.
import { signal } from "../html.js";

export class Selection {
  constructor() {
    this.ids = signal(new Set());
    this.last = null;
  }

  /** Select or deselect a row; with `stretch` all rows from the one before as well. */
  toggle(runId, order, stretch) {
    const ids = new Set(this.ids.value);
    const wanted = !ids.has(runId);
    const from = order.indexOf(this.last);
    const to = order.indexOf(runId);
    const some = stretch && from >= 0 ? order.slice(Math.min(from, to), Math.max(from, to) + 1) : [runId];
    for (const id of some) {
      if (wanted) ids.add(id);
      else ids.delete(id);
    }
    this.last = runId;
    this.ids.value = ids;
  }

  set(runIds) {
    this.ids.value = new Set(runIds);
    this.last = null;
  }
}
