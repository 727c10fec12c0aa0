// A value that a task took or gave, as text; a long one begins folded.
import { html, useState } from "../html.js";
import { t } from "../i18n.js";
import { CopyButton } from "./copy.js";

const SHOWN = 4000;

export function Value({ name, text }) {
  const [all, setAll] = useState(false);
  const cut = !all && text.length > SHOWN;
  return html`<div class="value">
    <h3>${name}<${CopyButton} text=${text} /></h3>
    <pre tabindex="0">${cut ? text.slice(0, SHOWN) : text}</pre>
    ${cut && html`<button type="button" class="link" onClick=${() => setAll(true)}>${t("value.all", { n: text.length })}</button>`}
  </div>`;
}
