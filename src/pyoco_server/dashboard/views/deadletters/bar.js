// What can be done with the selected letters.
import { html } from "../../html.js";
import { t, tn } from "../../i18n.js";
import { clientCommand } from "../../parts/commands.js";
import { copyText } from "../../parts/copy.js";
import { Icon } from "../../parts/icon.js";

export function SelectionBar({ ids, onAct, onNone }) {
  if (!ids.length) return null;
  const command = clientCommand(["dlq", "replay", ...ids.map(String)]);
  return html`<div class="selection" role="region" aria-label=${t("letters.selection")}>
    <span>${tn("letters.selected", ids.length)}</span>
    <button type="button" onClick=${() => onAct("replay")}><${Icon} name="again" />${t("letters.replay")}</button>
    <button type="button" onClick=${() => onAct("delete")}><${Icon} name="close" />${t("letters.delete")}</button>
    <button type="button" onClick=${() => copyText(command)}><${Icon} name="copy" />${t("copyCommand")}</button>
    <button type="button" class="plain" onClick=${onNone}>${t("bulk.none")}</button>
  </div>`;
}
