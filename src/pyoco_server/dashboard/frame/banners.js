// What is wrong with the page itself or the server behind it, and what is done about it.
import { html } from "../html.js";
import { connection, health, outdated } from "../events.js";
import { t } from "../i18n.js";

export function Banners() {
  return html`<div class="banners" role="status" aria-live="polite">${lines().map(
    ([kind, text, action]) => html`<div key=${text} class="banner ${kind}"><span>${text}</span>${action}</div>`,
  )}</div>`;
}

function lines() {
  const found = [];
  if (connection.value === "away") found.push(["bad", t("banner.away")]);
  else if (connection.value === "back") found.push(["good", t("banner.back")]);
  const there = connection.value === "live" || connection.value === "back";
  if (there && !health.value.nats_up) found.push(["bad", t("banner.nats")]);
  else if (there && !health.value.caught_up) found.push(["", t("banner.index")]);
  if (outdated.value)
    found.push(["", t("banner.outdated"), html`<button type="button" onClick=${() => location.reload()}>${t("reload")}</button>`]);
  return found;
}
