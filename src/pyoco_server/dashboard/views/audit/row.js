// One entry of the audit trail.
import { html } from "../../html.js";
import { has, t } from "../../i18n.js";
import { fieldText } from "../../json.js";
import { Icon } from "../../parts/icon.js";
import { Time } from "../../parts/time.js";
import { link } from "../../router.js";

const LOOKS = { done: "completed", refused: "failed", unknown: "cancelling" };
const ICONS = { done: "completed", refused: "failed", unknown: "help" };
const NONE = html`<span class="none">–</span>`;
export const COLUMNS = ["when", "action", "outcome", "target", "actor", "address", "details"];

export function actionWord(action) {
  return has(`audit.action.${action}`) ? t(`audit.action.${action}`) : action;
}

export function outcomeWord(outcome) {
  return has(`audit.outcome.${outcome}`) ? t(`audit.outcome.${outcome}`) : outcome;
}

/** Where a thing is shown on this page; null where it is not. */
function placeOf({ kind, id }) {
  if (kind === "run") return link(`/runs/${encodeURIComponent(id)}`);
  if (kind === "letter") return link("/deadletters", { letter: id });
  return { wheel: link("/wheels"), worker: link("/workers") }[kind] ?? null;
}

function Target({ target }) {
  if (!target.id) return NONE;
  const place = placeOf(target);
  const id = html`<code>${target.id}</code>`;
  return place ? html`<a href=${place}>${id}</a>` : id;
}

function Actor({ actor, query }) {
  if (!actor.api_key_id) return html`<span class="none">${t("audit.noKey")}</span>`;
  return html`<a href=${link("/audit", { ...query, actor: actor.api_key_id })} title=${actor.api_key_id}><code>${actor.api_key_id.slice(0, 8)}</code></a>${actor.tenant_id && html` <small>${actor.tenant_id}</small>`}`;
}

function told(holder, key) {
  const value = holder[key];
  if (Array.isArray(value)) return value.map((_, at) => fieldText(value, String(at))).join(", ") || "–";
  return value === null || value === undefined ? "–" : fieldText(holder, key);
}

function Details({ details }) {
  const entries = Object.entries(details ?? {});
  if (!entries.length) return NONE;
  return entries.map(([name, value]) => html`<span key=${name} class="detail" title=${told(details, name)}><small>${name}</small> ${
    name === "run_id" && typeof value === "string" ? html`<a href=${link(`/runs/${encodeURIComponent(value)}`)}><code>${value.slice(0, 13)}</code></a>` : told(details, name)}</span> `);
}

export function Row({ entry, query }) {
  const { actor = {}, source = {}, target = {} } = entry;
  const cell = (name, content, title = "") => html`<td class=${name} title=${title} data-label=${t(`audit.column.${name}`)}>${content}</td>`;
  return html`<tr data-entry=${entry.event_id}>
    ${cell("when", html`<${Time} at=${entry.at} whole />`)}
    ${cell("action", actionWord(entry.action), entry.action)}
    ${cell("outcome", html`<span class="status ${LOOKS[entry.outcome] ?? "other"}"><${Icon} name=${ICONS[entry.outcome] ?? "other"} /><span>${outcomeWord(entry.outcome)}</span></span>`, entry.status ? `HTTP ${entry.status}` : "")}
    ${cell("target", html`<${Target} target=${target} />`)}
    ${cell("actor", html`<${Actor} actor=${actor} query=${query} />`)}
    ${cell("address", source.remote_addr ?? source.host ?? NONE, [source.x_forwarded_for, source.user_agent].filter(Boolean).join("\n"))}
    ${cell("details", html`<${Details} details=${entry.details} />`)}
  </tr>`;
}
