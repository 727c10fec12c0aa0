// The queues: for each tag what waits, who serves it, and how that went in the last minutes.
import { html, useEffect, useMemo } from "../../html.js";
import { now } from "../../clock.js";
import { t, tn } from "../../i18n.js";
import { workerCommand } from "../../parts/commands.js";
import { Empty, Trouble } from "../../parts/empty.js";
import { OverviewFeed } from "../overview/feed.js";
import { QueueTable, worstFirst } from "./table.js";

export function View() {
  const feed = useMemo(() => new OverviewFeed(), []);
  useEffect(() => {
    document.title = `${t("nav.queues")} · pyoco-server`;
    feed.start();
    return () => feed.stop();
  }, [feed]);
  const told = feed.told.value;
  return html`
    <div class="head"><h1>${t("nav.queues")}</h1></div>
    ${feed.error.value && !told && html`<${Trouble} error=${feed.error.value} onAgain=${() => feed.load()} />`}
    ${!told && !feed.error.value && html`<p class="loading">${t("loading")}</p>`}
    ${told?.queues.length === 0 && html`<${Empty} title=${t("queues.none")} text=${t("queues.none.text")} command=${workerCommand(told.nats_url, "cpu", [])} />`}
    ${told?.queues.length > 0 && html`<${QueueTable} queues=${worstFirst(told.queues, now.value)} told=${told} />
      ${told.queues_left_out > 0 && html`<p class="end">${tn("queues.leftOut", told.queues_left_out)}</p>`}`}`;
}
