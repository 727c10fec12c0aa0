// The workers: who is there, what each one does and takes, and what is wrong with it.
import { html, useEffect, useMemo } from "../../html.js";
import { t, tn } from "../../i18n.js";
import { workerCommand } from "../../parts/commands.js";
import { Empty, Trouble } from "../../parts/empty.js";
import { link } from "../../router.js";
import { allows } from "../../session.js";
import { WorkerFeed } from "./feed.js";
import { COLUMNS, Row } from "./row.js";

export function View({ query }) {
  const feed = useMemo(() => new WorkerFeed(), []);
  useEffect(() => {
    document.title = `${t("nav.workers")} · pyoco-server`;
    feed.start();
    return () => feed.stop();
  }, [feed]);
  const everyone = feed.workers.value && [...feed.workers.value.values()];
  const withHidden = query.hidden === "1";
  const shown = everyone?.filter((worker) => withHidden || !worker.hidden).sort((one, other) => (one.worker_id < other.worker_id ? -1 : 1));
  const hidden = everyone?.filter((worker) => worker.hidden).length ?? 0;
  return html`
    <div class="head"><h1>${t("nav.workers")}</h1>
      ${hidden > 0 && html`<a href=${link("/workers", withHidden ? {} : { hidden: "1" })}>${withHidden ? t("workers.hideHidden") : tn("workers.showHidden", hidden)}</a>`}</div>
    ${feed.error.value && html`<${Trouble} error=${feed.error.value} onAgain=${() => feed.load()} />`}
    ${!shown && !feed.error.value && html`<p class="loading">${t("loading")}</p>`}
    ${shown && shown.length === 0 && html`<${Empty} title=${t("workers.none")} text=${t("workers.none.text")} command=${workerCommand(feed.natsUrl, "cpu", [])} />`}
    ${shown && shown.length > 0 && html`<${Table} workers=${shown} onChange=${(worker) => feed.take({ items: [worker] })} />`}`;
}

function Table({ workers, onChange }) {
  return html`<table class="workers" aria-label=${t("nav.workers")}>
    <thead><tr>${COLUMNS.map((name) => html`<th key=${name} class=${name} scope="col">${t(`workers.column.${name}`)}</th>`)}
      ${allows("operator") && html`<td></td>`}</tr></thead>
    <tbody>${workers.map((worker) => html`<${Row} key=${worker.worker_id} worker=${worker} onChange=${onChange} />`)}</tbody>
  </table>`;
}
