// Is anything wrong? The first thing that the page shows.
import { html, useEffect, useMemo } from "../../html.js";
import { now } from "../../clock.js";
import { connection, counts } from "../../events.js";
import { t, tn } from "../../i18n.js";
import { clientCommand, workerCommand } from "../../parts/commands.js";
import { Command } from "../../parts/copy.js";
import { Empty, Trouble } from "../../parts/empty.js";
import { Icon } from "../../parts/icon.js";
import { link } from "../../router.js";
import { QueueTable, worstFirst } from "../queues/table.js";
import { WorkerFeed } from "../workers/feed.js";
import { isHere } from "../workers/row.js";
import { Alerts, alertsOf } from "./alerts.js";
import { Charts } from "./charts.js";
import { OverviewFeed } from "./feed.js";
import { Tiles } from "./tiles.js";

const FIRST_RUN = clientCommand(["submit-yaml"], { "workflow-file": "flow.yaml", "flow-name": "main", tag: "cpu" });
const MOST_QUEUES = 6;

export function View() {
  const feed = useMemo(() => new OverviewFeed(), []);
  const crew = useMemo(() => new WorkerFeed(), []);
  useEffect(() => {
    document.title = `${t("nav.overview")} · pyoco-server`;
    feed.start();
    crew.start();
    return () => {
      feed.stop();
      crew.stop();
    };
  }, [feed]);
  const told = feed.told.value;
  const workers = [...(crew.workers.value?.values() ?? [])];
  const read = told && crew.workers.value;
  const runs = counts.value ?? told?.runs ?? {};
  const alerts = read ? alertsOf(told, workers, now.value) : [];
  const error = feed.error.value ?? crew.error.value;
  return html`
    <div class="head"><h1>${t("nav.overview")}</h1>${read && html`<${Verdict} told=${told} alerts=${alerts} old=${Boolean(error)} />`}</div>
    ${error && !read && html`<${Trouble} error=${error} onAgain=${() => (feed.load(), crew.load())} />`}
    ${!read && !error && html`<p class="loading">${t("loading")}</p>`}
    ${read && html`
      <${Alerts} alerts=${alerts} />
      ${Object.values(runs).every((n) => !n) ? html`<${First} natsUrl=${told.nats_url} served=${workers.some(isHere)} />` : html`
        <${Tiles} told=${told} runs=${runs} workers=${workers} />
        <${Charts} pace=${told.pace} />`}
      ${told.queues.length > 0 && html`<${Queues} told=${told} />`}`}`;
}

/** Everything in one line. */
function Verdict({ told, alerts, old }) {
  const failed = told.failed.hour.runs;
  const [kind, icon, text] = old || connection.value === "away" || !told.nats_up ? ["bad", "warning", t("verdict.away")]
    : alerts.length ? [alerts[0].kind, "warning", tn("verdict.wrong", alerts.length)]
    : failed ? ["warn", "failed", tn("verdict.failing", failed)]
    : ["good", "completed", t("verdict.well")];
  return html`<p class="stand ${kind}" role="status"><${Icon} name=${icon} />${text}</p>`;
}

function Queues({ told }) {
  const shown = worstFirst(told.queues, now.value).slice(0, MOST_QUEUES);
  return html`<section class="of-queues" aria-label=${t("nav.queues")}>
    <div class="head"><h2>${t("nav.queues")}</h2><a href=${link("/queues")}>${t("queues.all", { n: told.queues.length + told.queues_left_out })}</a></div>
    <${QueueTable} queues=${shown} told=${told} brief=${true} />
  </section>`;
}

function First({ natsUrl, served }) {
  return html`<${Empty} title=${t("runs.first.title")} text=${t("overview.first.text")}>
    <ol class="steps">
      <li class=${served ? "done" : ""}><p>${served && html`<${Icon} name="completed" /> `}${t(served ? "overview.first.served" : "overview.first.worker")}</p>
        ${!served && html`<${Command} text=${workerCommand(natsUrl, "cpu", [])} />`}</li>
      <li><p>${t("overview.first.submit")}</p><${Command} text=${FIRST_RUN} /></li>
    </ol>
  </${Empty}>`;
}
