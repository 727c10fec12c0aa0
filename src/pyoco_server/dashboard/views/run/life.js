// The run's life on a line: how long it waited, was tried, ran, and was stopped.
import { html } from "../../html.js";
import { now } from "../../clock.js";
import { t, tn } from "../../i18n.js";
import { hasEnded, look, statusWord } from "../../parts/status.js";
import { Time, duration } from "../../parts/time.js";

/** Give the parts of the line as `{ kind, label, from, to }`; `clock` is the end of what goes on. */
export function lifeParts(run, clock) {
  const ended = hasEnded(run.status);
  const end = ended ? (run.end_time ?? run.updated_at) : clock;
  const parts = [];
  const add = (kind, label, from, to) => from && to > from && parts.push({ kind, label, from, to });
  const wait = run.queue_wait_ms ?? null;
  const first = wait === null || !run.submitted_at ? null : run.submitted_at + wait / 1000;
  add("pending", t("life.waited"), run.submitted_at, first ?? run.start_time ?? end);
  // Of attempts before the last one it is known that they were, and how long all of them took.
  if (first && run.attempt > 1) add("lost", tn("life.lost", run.attempt - 1), first, run.start_time ?? end);
  const stop = run.cancel_requested_at;
  const runs = run.start_time ?? null;
  const label = t("life.attempt", { n: run.attempt });
  if (runs && stop && stop > runs) {
    add("running", label, runs, stop);
    add("cancelling", statusWord("CANCELLING"), stop, end);
  } else {
    add(ended ? look(run.status) : "running", label, runs, end);
  }
  return parts;
}

export function Life({ run }) {
  const ended = hasEnded(run.status);
  const parts = lifeParts(run, ended ? 0 : now.value);
  if (!parts.length) return null;
  const begin = parts[0].from;
  const whole = parts.at(-1).to - begin;
  // Each part can be seen, however short: a fifth of the line is shared out evenly.
  const share = (part) => 80 * ((part.to - part.from) / whole) + 20 / parts.length;
  const told = parts.map((part) => `${part.label} ${duration(part.to - part.from)}`).join(", ");
  return html`<div class="life">
    <div class="line" role="img" aria-label=${told}>${parts.map(
      (part, at) => html`<span key=${at} class="part ${part.kind}" style=${{ flexBasis: `${share(part)}%` }} title=${`${part.label} ${duration(part.to - part.from)}`}>
        <b>${part.label}</b> ${duration(part.to - part.from)}</span>`,
    )}</div>
    <div class="ends"><span><${Time} at=${begin} whole /></span><span>${ended ? html`<${Time} at=${run.end_time ?? run.updated_at} whole />` : t("life.now")}</span></div>
  </div>`;
}
