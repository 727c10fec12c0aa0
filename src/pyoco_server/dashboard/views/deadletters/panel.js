// One letter: what was to be run, why it was not, and what can be done with it.
import { html, useEffect, useState } from "../../html.js";
import { get } from "../../api.js";
import { fieldText, indented } from "../../json.js";
import { has, number, t } from "../../i18n.js";
import { clientCommand } from "../../parts/commands.js";
import { copyText } from "../../parts/copy.js";
import { Icon } from "../../parts/icon.js";
import { told } from "../../parts/problem.js";
import { Time } from "../../parts/time.js";
import { Json, Value } from "../../parts/value.js";
import { link } from "../../router.js";
import { allows } from "../../session.js";
import { readable } from "./feed.js";
import { Reason } from "./reasons.js";
import { RunLink, attempts } from "./rows.js";

const ID = /^[1-9][0-9]{0,17}$/;

/** Read a letter; gives `{ letter }` or `{ error }`, and an empty object meanwhile. */
function useLetter(id, tries) {
  const [found, setFound] = useState({});
  useEffect(() => {
    const request = new AbortController();
    setFound({});
    if (!ID.test(id)) setFound({ error: { code: "dead_letter_not_found" } });
    else
      get(`/dlq/${id}`, {}, request.signal).then(
        (letter) => setFound({ letter: readable(letter) }),
        (error) => request.signal.aborted || setFound({ error }),
      );
    return () => request.abort();
  }, [id, tries]);
  return found;
}

export function LetterPanel({ id, gone, onAct, onClose }) {
  const [tries, setTries] = useState(0);
  const { letter, error } = useLetter(id, tries);
  return html`<aside class="panel letter" aria-label=${t("letters.panel", { id })}>
    <header><h2>${t("letters.panel", { id })}</h2>
      <button type="button" class="plain" aria-label=${t("close")} onClick=${onClose}><${Icon} name="close" /></button></header>
    ${error && html`<${Missing} error=${error} onAgain=${() => setTries(tries + 1)} />`}
    ${!letter && !error && html`<p class="loading">${t("loading")}</p>`}
    ${letter && html`<${Letter} letter=${letter} gone=${gone} onAct=${onAct} />`}
  </aside>`;
}

function Missing({ error, onAgain }) {
  if (error.code === "dead_letter_not_found") return html`<p class="none" role="status">${t("letters.gone.long")}</p>`;
  return html`<p class="wrong" role="alert">${told(error)}</p>
    <button type="button" onClick=${onAgain}>${t("again")}</button>`;
}

function Fact({ name, children }) {
  return html`<div><dt>${t(name)}</dt><dd>${children}</dd></div>`;
}

function Letter({ letter, gone, onAct }) {
  const help = has(`letters.help.${letter.reason}`) && t(`letters.help.${letter.reason}`);
  const commands = ["show", "replay"].map((word) => clientCommand(["dlq", word, String(letter.id)])).join("\n");
  return html`
    <p><${Reason} of=${letter.reason} /></p>
    ${letter.error && html`<pre class="what-happened" tabindex="0">${letter.error}</pre>`}
    ${help && html`<p class="help">${help}</p>`}
    ${gone && html`<p class="note" role="status"><${Icon} name="warning" /> ${t("letters.gone.long")}</p>`}
    <div class="actions">
      ${allows("member") && !gone && html`
        <button type="button" class="main" onClick=${() => onAct("replay", letter.id)}><${Icon} name="again" />${t("letters.replay")}</button>
        <button type="button" onClick=${() => onAct("delete", letter.id)}><${Icon} name="close" />${t("letters.delete")}</button>`}
      <button type="button" onClick=${() => copyText(commands)}><${Icon} name="copy" />${t("copyCommand")}</button>
    </div>
    <${Facts} letter=${letter} />
    ${letter.omitted.length > 0 && html`<p class="note">${t("letters.omitted", { names: letter.omitted.join(", ") })}</p>`}
    <${Content} letter=${letter} />`;
}

function Facts({ letter }) {
  const tags = (Array.isArray(letter.tags) ? letter.tags : []).filter((tag) => typeof tag === "string" && tag !== letter.tag);
  return html`<dl class="facts">
    <${Fact} name="letters.column.run"><${RunLink} runId=${letter.run_id} /></${Fact}>
    ${letter.flow_name && html`<${Fact} name="column.flow">${letter.flow_name}</${Fact}>`}
    <${Fact} name="column.tag"><a class="chip" href=${link("/deadletters", { tag: letter.tag })}>${letter.tag}</a>${tags.map((tag) => html` <span class="chip">${tag}</span>`)}</${Fact}>
    ${letter.worker_id && html`<${Fact} name="column.worker">${letter.worker_id}</${Fact}>`}
    ${attempts(letter) && html`<${Fact} name="letters.column.attempts">${attempts(letter)}</${Fact}>`}
    ${letter.end_reason && html`<${Fact} name="run.endReason">${has(`end.${letter.end_reason}`) ? t(`end.${letter.end_reason}`) : letter.end_reason}</${Fact}>`}
    ${letter.submitted_at && html`<${Fact} name="run.submitted"><${Time} at=${letter.submitted_at} /></${Fact}>`}
    <${Fact} name="letters.column.when"><${Time} at=${letter.timestamp} whole /></${Fact}>
    ${Number.isInteger(letter.num_delivered) && letter.num_delivered > 1 && html`<${Fact} name="letters.delivered">${number(letter.num_delivered)}</${Fact}>`}
    ${letter.tenant_id && html`<${Fact} name="run.tenant">${letter.tenant_id}</${Fact}>`}
  </dl>`;
}

/** What was to be run. A payload is the beginning of a message that is perhaps no JSON. */
function Content({ letter }) {
  const there = (value) => value !== null && value !== undefined;
  return html`
    ${there(letter.payload) && html`<${Value} name=${t("letters.payload")} text=${payload(letter)} />`}
    ${there(letter.params) && html`<${Json} name=${t("run.params")} of=${letter} field="params" />`}
    ${there(letter.workflow_yaml) && html`<${Json} name="flow.yaml" of=${letter} field="workflow_yaml" />`}`;
}

function payload(letter) {
  const text = fieldText(letter, "payload", 2);
  try {
    return indented(text);
  } catch {
    return text;
  }
}
