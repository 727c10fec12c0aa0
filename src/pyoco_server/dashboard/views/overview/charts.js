// The last hour: how many runs ended in each minute, how long they had waited, and how long they ran.
import { html, useMemo } from "../../html.js";
import { number, t, tn } from "../../i18n.js";
import { Chart } from "../../parts/chart.js";
import { duration } from "../../parts/time.js";
import { link } from "../../router.js";

const ENDS = [["failed", "FAILED"], ["cancelled", "CANCELLED"], ["completed", "COMPLETED"]];
const onAxis = (seconds) => (seconds === 0 ? "0" : duration(seconds));
const inSeconds = (ms) => (ms === null ? null : ms / 1000);

export function Charts({ pace }) {
  const times = useMemo(() => Array.from({ length: pace.minutes }, (_, minute) => pace.began_at + minute * 60), [pace]);
  return html`<section class="charts" aria-label=${t("chart.label")}>
    <${Ended} pace=${pace} times=${times} />
    <${Spans} name="run" pace=${pace} times=${times} to=${link("/runs", { since: "1h" })} />
    <${Spans} name="wait" pace=${pace} times=${times} to=${link("/queues")} />
  </section>`;
}

function Ended({ pace, times }) {
  const all = Object.values(pace.hour.ended).reduce((sum, runs) => sum + runs, 0);
  const series = useMemo(() => ENDS.map(([name, status]) => ({ name, text: t(`status.${status}`), values: pace.ended[status], bars: true })), [pace]);
  const words = ENDS.map(([, status]) => `${t(`status.${status}`)} ${number(pace.hour.ended[status])}`).join(", ");
  return html`<figure><figcaption><a href=${link("/runs", { since: "1h" })}>${t("chart.ended")}</a>
      <p><b>${number(all)}</b> ${tn("chart.inHour", all)} · <span>${t("chart.rate", { n: Math.round((all / pace.minutes) * 10) / 10 })}</span></p></figcaption>
    <${Chart} label=${`${t("chart.ended")}: ${words}`} times=${times} series=${series} format=${number} whole=${true} /></figure>`;
}

function Spans({ name, pace, times, to }) {
  const spans = pace[`${name}_ms`];
  const hour = pace.hour[`${name}_ms`];
  const series = useMemo(() => ["p50", "p95"].map((part) => ({ name: part, text: t(`chart.${part}`), values: spans[part].map(inSeconds) })), [pace]);
  const told = (part) => duration(inSeconds(hour[part]));
  return html`<figure><figcaption><a href=${to}>${t(`chart.${name}`)}</a>
      <p>p50 <b>${told("p50")}</b> p95 <b>${told("p95")}</b></p></figcaption>
    <${Chart} label=${`${t(`chart.${name}`)}: p50 ${told("p50")}, p95 ${told("p95")}`} times=${times} series=${series} format=${duration} tick=${onAxis} /></figure>`;
}
