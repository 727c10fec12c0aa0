// Which keys do what, here.
import { html } from "../html.js";
import { t } from "../i18n.js";
import { bindings } from "../keyboard.js";
import { Dialog } from "../parts/dialog.js";

export function Help({ onClose }) {
  const entries = new Map(bindings.value.flat().map(([keys, text]) => [keys, text]));
  return html`<${Dialog} title=${t("keys.title")} onClose=${onClose}>
    <dl class="keys">${[...entries].map(
      ([keys, text]) => html`<div key=${keys}><dt>${keys.split(" ").map((one) => html`<kbd>${one}</kbd>`)}</dt><dd>${t(text)}</dd></div>`,
    )}<div><dt><kbd>Esc</kbd></dt><dd>${t("keys.escape")}</dd></div></dl>
  </${Dialog}>`;
}
