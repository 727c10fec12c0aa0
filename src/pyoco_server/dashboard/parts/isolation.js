// Whether a run has a process of its own, in words.
import { html } from "../html.js";
import { has, t } from "../i18n.js";

/** `of` is "process" or "shared". */
export function Isolation({ of }) {
  const word = has(`isolation.${of}`) ? t(`isolation.${of}`) : of;
  return html`<span title=${has(`isolation.${of}.long`) ? t(`isolation.${of}.long`) : ""}>${word}</span>`;
}
