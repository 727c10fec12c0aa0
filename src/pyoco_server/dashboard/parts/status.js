// A status as icon, word and colour: any two of them may be missing for a reader.
import { html } from "../html.js";
import { has, t } from "../i18n.js";
import { Icon } from "./icon.js";

/** What each status looks like; tasks have three words of their own. */
const LOOKS = {
  PENDING: "pending",
  RUNNING: "running",
  CANCELLING: "cancelling",
  COMPLETED: "completed",
  SUCCEEDED: "completed",
  FAILED: "failed",
  CANCELLED: "cancelled",
  SKIPPED: "skipped",
  NOT_RUN: "skipped",
};
const ENDED = new Set(["COMPLETED", "FAILED", "CANCELLED"]);

export function look(status) {
  return LOOKS[status] ?? "other";
}

export function hasEnded(status) {
  return ENDED.has(status);
}

export function statusWord(status) {
  return has(`status.${status}`) ? t(`status.${status}`) : String(status ?? "–");
}

export function Status({ of }) {
  return html`<span class="status ${look(of)}"><${Icon} name=${look(of)} /><span>${statusWord(of)}</span></span>`;
}
