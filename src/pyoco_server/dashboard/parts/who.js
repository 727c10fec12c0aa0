// Who did something, as the server tells it to this reader.
import { html } from "../html.js";
import { t } from "../i18n.js";

/** `event` has an `actor` and a `source`; where no keys are in use, only the address is known. */
export function Who({ event }) {
  const { actor = {}, source = {} } = event;
  const from = source.remote_addr ?? source.host;
  if (actor.api_key_id)
    return html`<span title=${[actor.tenant_id, actor.api_key_id, from, source.user_agent].filter(Boolean).join("\n")}>${actor.tenant_id ? `${actor.tenant_id} · ` : ""}<code>${actor.api_key_id.slice(0, 8)}</code></span>`;
  return from ? html`<span title=${source.user_agent ?? ""}>${from}</span>` : html`<span class="none">${t("who.unknown")}</span>`;
}
