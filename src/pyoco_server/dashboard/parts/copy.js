// Copying a text: a command, an id.
import { html } from "../html.js";
import { t } from "../i18n.js";
import { say } from "./announce.js";
import { Icon } from "./icon.js";

/** Copy a text, also where the page came over plain HTTP and the browser keeps its clipboard to itself. */
export async function copyText(text) {
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copyBySelection(text);
    say(t("copied"));
  } catch {
    say(t("notCopied"), "bad");
  }
}

function copyBySelection(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("the browser does not copy");
}

export function CopyButton({ text, label = t("copy") }) {
  return html`<button class="plain copy" type="button" title=${label} aria-label=${label} onClick=${() => copyText(text)}><${Icon} name="copy" /></button>`;
}

/** A command that the reader may run. */
export function Command({ text }) {
  return html`<div class="command"><code>${text}</code><${CopyButton} text=${text} label=${t("copyCommand")} /></div>`;
}
