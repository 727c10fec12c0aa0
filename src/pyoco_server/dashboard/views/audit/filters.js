// What of the trail is wanted.
import { html, useEffect, useId, useState } from "../../html.js";
import { t } from "../../i18n.js";
import { outcomeWord, actionWord } from "./row.js";

export const ACTIONS = [
  "run.submit", "run.cancel", "run.rerun", "letter.replay", "letter.delete", "wheel.upload", "wheel.delete", "wheel.pin",
  "wheel.unpin", "worker.patch", "worker.drain", "key.create", "key.revoke",
];
export const OUTCOMES = ["done", "refused", "unknown"];

function Choice({ name, label, values, word, value, onChoose }) {
  const field = useId();
  return html`<div><label for=${field}>${label}</label>
    <select id=${field} value=${value ?? ""} onChange=${(event) => onChoose({ [name]: event.target.value })}>
      <option value="">${t("tab.all")}</option>${values.map((one) => html`<option key=${one} value=${one}>${word(one)}</option>`)}
    </select></div>`;
}

/** A field that counts when it is left or Enter is pressed. */
function Words({ name, label, hint, value, onChoose }) {
  const field = useId();
  const [text, setText] = useState(value ?? "");
  useEffect(() => setText(value ?? ""), [value]); // the address changed by another way
  return html`<div><label for=${field}>${label}</label>
    <input id=${field} type="search" autocomplete="off" spellcheck="false" placeholder=${hint} value=${text}
      onInput=${(event) => setText(event.target.value)} onChange=${(event) => onChoose({ [name]: event.target.value.trim() })} /></div>`;
}

export function Filters({ query, onChoose }) {
  const wrong = [["action", ACTIONS], ["outcome", OUTCOMES]].some(([name, values]) => query[name] && !values.includes(query[name]));
  return html`<form class="filters" role="search" aria-label=${t("audit.filters")} onSubmit=${(event) => event.preventDefault()}>
    <${Choice} name="action" label=${t("audit.column.action")} values=${ACTIONS} word=${actionWord} value=${query.action} onChoose=${onChoose} />
    <${Choice} name="outcome" label=${t("audit.column.outcome")} values=${OUTCOMES} word=${outcomeWord} value=${query.outcome} onChoose=${onChoose} />
    <${Words} name="target" label=${t("audit.column.target")} hint=${t("audit.target.hint")} value=${query.target} onChoose=${onChoose} />
    <${Words} name="actor" label=${t("audit.column.actor")} hint=${t("audit.actor.hint")} value=${query.actor} onChoose=${onChoose} />
    ${(wrong || Object.keys(query).length > 0) && html`<button type="button" onClick=${() => onChoose(null)}>${t("audit.clear")}</button>`}
  </form>`;
}
