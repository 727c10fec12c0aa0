// What can be done with the selected runs.
import { html, useState } from "../../html.js";
import { t, tn } from "../../i18n.js";
import { forEach } from "../../parts/bulk.js";
import { CopyButton, copyText } from "../../parts/copy.js";
import { clientCommand } from "../../parts/commands.js";
import { Confirm } from "../../parts/dialog.js";
import { Icon } from "../../parts/icon.js";
import { hasEnded } from "../../parts/status.js";
import { allows } from "../../session.js";
import { cancelRun, rerunRun } from "./actions.js";

export function SelectionBar({ ids, feed, onDone }) {
  const [asking, setAsking] = useState(null);
  if (!ids.size) return null;
  const chosen = [...ids];
  const stoppable = chosen.filter((id) => feed.known.has(id) && !hasEnded(feed.known.get(id).value.status));
  const act = (runIds, action, key) => {
    onDone();
    forEach(runIds, action, key);
  };
  const commands = (runIds, words) => runIds.map((id) => clientCommand([...words, id])).join("\n");
  return html`<div class="selection" role="region" aria-label=${t("bulk.label")}>
    <span>${tn("bulk.selected", ids.size)}</span>
    ${allows("member") && html`
      <button type="button" disabled=${!stoppable.length} onClick=${() => setAsking("cancel")}><${Icon} name="stop" />${t("cancel")}</button>
      <button type="button" onClick=${() => setAsking("rerun")}><${Icon} name="again" />${t("rerun")}</button>`}
    <button type="button" onClick=${() => copyText(commands(chosen, ["get"]))}><${Icon} name="copy" />${t("copyCommand")}</button>
    <button type="button" class="plain" onClick=${onDone}>${t("bulk.none")}</button>
    ${asking === "cancel" && html`<${Confirm} title=${tn("bulk.cancel.title", stoppable.length)} text=${t("bulk.cancel.text")}
      action=${tn("bulk.cancel.yes", stoppable.length)} onClose=${() => setAsking(null)} onYes=${() => act(stoppable, cancelRun, "bulk.cancelled")} />`}
    ${asking === "rerun" && html`<${Confirm} title=${tn("bulk.rerun.title", chosen.length)} text=${t("bulk.rerun.text")}
      action=${tn("bulk.rerun.yes", chosen.length)} onClose=${() => setAsking(null)} onYes=${() => act(chosen, rerunRun, "bulk.rerun")} />`}
  </div>`;
}

/** The list that is shown, as a command. */
export function ListCommand({ query, asked }) {
  const options = { status: asked.status, flow: query.flow, tag: query.tag, "updated-after": asked.updated_after && Math.floor(asked.updated_after) };
  const told = !query.worker && !query.id; // the command has no words for these
  return told ? html`<${CopyButton} text=${clientCommand(["list-vnext"], options)} label=${t("runs.copyList")} />` : null;
}
