// What happened to wheels, the newest first.
import { html } from "../../html.js";
import { has, t, tn } from "../../i18n.js";
import { Time } from "../../parts/time.js";
import { Who } from "../../parts/who.js";

const COLUMNS = ["when", "action", "wheel", "for", "who"];

function word(action) {
  return has(`wheels.action.${action}`) ? t(`wheels.action.${action}`) : action;
}

export function History({ events }) {
  if (!events.length) return null;
  return html`<details class="fold history"><summary>${tn("wheels.history", events.length)}</summary>
    <table class="plain-table" aria-label=${t("wheels.history.label")}>
      <thead><tr>${COLUMNS.map((name) => html`<th key=${name} scope="col">${t(`wheels.column.${name}`)}</th>`)}</tr></thead>
      <tbody>${events.map((event) => html`<tr key=${event.event_id}>
        <td><${Time} at=${event.occurred_at} whole /></td><td>${word(event.action)}</td><td class="wheel"><code>${event.wheel_name}</code></td>
        <td>${event.tags.map((tag) => html`<span key=${tag} class="chip">${tag}</span> `)}</td><td><${Who} event=${event} /></td></tr>`)}</tbody>
    </table>
  </details>`;
}
