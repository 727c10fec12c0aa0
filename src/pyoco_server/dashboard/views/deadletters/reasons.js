// Why a job became a dead letter, in words.
import { html } from "../../html.js";
import { has, t } from "../../i18n.js";
import { Icon } from "../../parts/icon.js";

/** What each reason looks like. */
const LOOKS = { execution_error: "failed", attempts_exhausted: "cancelling", flow_not_found: "cancelled", invalid_job: "other" };
const ICONS = { execution_error: "failed", attempts_exhausted: "warning", flow_not_found: "search", invalid_job: "other" };
export const REASONS = Object.keys(LOOKS);

export function reasonWord(reason) {
  return has(`letters.reason.${reason}`) ? t(`letters.reason.${reason}`) : (reason ?? "–");
}

export function Reason({ of }) {
  return html`<span class="status ${LOOKS[of] ?? "other"}"><${Icon} name=${ICONS[of] ?? "other"} /><span>${reasonWord(of)}</span></span>`;
}
