// Short messages: shown for a moment, and told to screen readers when there is a pause.
import { html, signal } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "./icon.js";
import { told } from "./problem.js";

const SHOWN_MS = 6000;
const MOST = 4;
const messages = signal([]);
/** What a screen reader is told that needs no showing. */
const spoken = signal("");
let last = 0;

/** Say something; `kind` is "good" or "bad". What is bad stays until it is closed. */
export function say(text, kind = "good", hint = "") {
  const message = { id: (last += 1), text, kind, hint };
  messages.value = [...messages.value.slice(1 - MOST), message];
  if (kind === "good") setTimeout(() => close(message.id), SHOWN_MS);
}

/** Say what went wrong. */
export function sayError(error) {
  say(told(error), "bad", error.hint + (error.traceId ? ` (trace_id ${error.traceId})` : ""));
}

export function whisper(text) {
  spoken.value = text;
}

function close(id) {
  messages.value = messages.value.filter((message) => message.id !== id);
}

export function Announcements() {
  return html`
    <div class="announcements" role="status" aria-live="polite">
      ${messages.value.map(
        (message) => html`<div key=${message.id} class="announcement ${message.kind}">
          <p>${message.text}${message.hint && html`<small>${message.hint}</small>`}</p>
          <button class="plain" aria-label=${t("close")} onClick=${() => close(message.id)}><${Icon} name="close" /></button>
        </div>`,
      )}
    </div>
    <div class="unseen" role="status" aria-live="polite">${spoken.value}</div>`;
}
