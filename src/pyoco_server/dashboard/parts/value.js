// A value that a task took or gave; a long one begins folded.
import { html, useMemo, useState } from "../html.js";
import { t } from "../i18n.js";
import { fieldText, written } from "../json.js";
import { CopyButton } from "./copy.js";

const SHOWN = 4000;

/** `of` is what was read, or has it as a field. It is written once, for views are drawn again each second. */
export function Json({ name, of, field = null }) {
  const text = useMemo(() => (field === null ? written(of, 2) : fieldText(of, field, 2)), [of, field]);
  return html`<${Value} name=${name} text=${text} />`;
}

export function Value({ name, text }) {
  const [all, setAll] = useState(false);
  const cut = !all && text.length > SHOWN;
  return html`<div class="value">
    <h3>${name}<${CopyButton} text=${text} /></h3>
    <pre tabindex="0">${cut ? text.slice(0, SHOWN) : text}</pre>
    ${cut && html`<button type="button" class="link" onClick=${() => setAll(true)}>${t("value.all", { n: text.length })}</button>`}
  </div>`;
}
