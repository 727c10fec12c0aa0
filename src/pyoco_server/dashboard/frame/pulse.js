// Whether what is shown is fresh.
import { html } from "../html.js";
import { connection } from "../events.js";
import { t } from "../i18n.js";

export function Pulse() {
  const state = connection.value === "back" ? "live" : connection.value;
  return html`<span class="pulse ${state}" title=${t(`pulse.${state}.long`)}><i></i><span>${t(`pulse.${state}`)}</span></span>`;
}
