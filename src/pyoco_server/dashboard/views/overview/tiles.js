// The figures of now, each leading to what it counts.
import { html } from "../../html.js";
import { number, t, tn } from "../../i18n.js";
import { Icon } from "../../parts/icon.js";
import { Age } from "../../parts/time.js";
import { link } from "../../router.js";
import { isHere } from "../workers/row.js";
import { isLost, isMissed } from "./alerts.js";

function counted({ runs, letters = runs, complete }) {
  return number(letters) + (complete ? "" : "+");
}

function Tile({ name, icon, kind, figure, to, children }) {
  return html`<div class="tile ${kind ?? ""}" data-tile=${name}>
    <a class="figure" href=${to}><span class="label"><${Icon} name=${icon} />${t(`tile.${name}`)}</span><b>${figure}</b></a>
    <p>${children}</p>
  </div>`;
}

export function Tiles({ told, runs, workers }) {
  const here = workers.filter(isHere);
  const lost = workers.filter(isLost).length;
  const unfit = workers.filter(isMissed).length;
  const slots = here.reduce((sum, worker) => sum + (worker.slots ?? 1), 0);
  const running = (runs.RUNNING ?? 0) + (runs.CANCELLING ?? 0);
  const waits = told.queues.filter((queue) => queue.oldest_at).sort((one, other) => one.oldest_at - other.oldest_at)[0];
  const { hour, day } = told.failed;
  const letters = told.dead_letters;
  return html`<section class="tiles" aria-label=${t("tile.label")}>
    <${Tile} name="failed" icon=${hour.runs ? "failed" : "completed"} kind=${hour.runs ? "bad" : "good"} figure=${counted(hour)} to=${link("/runs", { status: "failed", since: "1h" })}>
      <a href=${link("/runs", { status: "failed", since: "24h" })}>${t("tile.failed.day", { n: counted(day) })}</a></${Tile}>
    <${Tile} name="running" icon="running" kind=${running ? "busy" : ""} figure=${number(running)} to=${link("/runs", { status: "running" })}>
      <a href=${link("/workers")}>${tn("tile.slots", slots)}</a></${Tile}>
    <${Tile} name="waiting" icon="pending" figure=${number(runs.PENDING ?? 0)} to=${link("/runs", { status: "waiting" })}>
      ${waits ? html`<a href=${link(`/runs/${encodeURIComponent(waits.oldest_run_id)}`)}>${t("tile.oldest")} <${Age} at=${waits.oldest_at} /></a> <span class="none">${waits.tag}</span>` : html`<span class="none">${t("tile.waiting.none")}</span>`}</${Tile}>
    <${Tile} name="workers" icon="screen" kind=${lost || unfit ? "alarm" : here.length ? "good" : ""} figure=${number(here.length)} to=${link("/workers")}>
      ${lost ? html`<a class="wrong" href=${link("/workers")}><${Icon} name="warning" /> ${tn("tile.lost", lost)}</a>` : unfit ? html`<a class="wrong" href=${link("/workers")}><${Icon} name="warning" /> ${tn("tile.unfit", unfit)}</a>` : html`<span class="none">${t("tile.lost.none")}</span>`}</${Tile}>
    <${Tile} name="letters" icon="stop" kind=${letters?.letters ? "warn" : ""} figure=${letters ? counted(letters) : "–"} to=${link("/deadletters")}>
      <span class="none">${t(!letters ? "tile.letters.unknown" : letters.letters ? "tile.letters.some" : "tile.letters.none")}</span></${Tile}>
  </section>`;
}
