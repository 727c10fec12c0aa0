// The field for the key, where keys are in use.
import { html, useEffect, useState } from "../html.js";
import { learnWho } from "../api.js";
import { t } from "../i18n.js";
import { Dialog } from "../parts/dialog.js";
import { Icon } from "../parts/icon.js";
import { key, keyWanted, keysInUse, setKey, who } from "../session.js";

export function KeyButton() {
  const [open, setOpen] = useState(false);
  const wanted = keyWanted.value;
  useEffect(() => {
    if (wanted) setOpen(true);
  }, [wanted]);
  if (!keysInUse.value) return null;
  const role = who.value ? t(`role.${who.value.role}`) : t("key.none");
  return html`<button type="button" class="key-button ${wanted ? "wanted" : ""}" onClick=${() => setOpen(true)}>
      <${Icon} name="key" />${role}</button>
    ${open && html`<${KeyDialog} onClose=${() => setOpen(false)} />`}`;
}

function KeyDialog({ onClose }) {
  const [text, setText] = useState(key.value);
  const [error, setError] = useState(keyWanted.value === "refused" ? t("key.refused") : "");
  const use = async (event) => {
    event.preventDefault();
    setKey(text);
    if (!key.value) return onClose();
    try {
      await learnWho();
      onClose();
    } catch (problem) {
      setError(problem.message);
    }
  };
  const forget = () => {
    setKey("");
    setText("");
    onClose();
  };
  return html`<${Dialog} title=${t("key.title")} onClose=${onClose}>
    <form onSubmit=${use}>
      <label for="api-key">${t("key.label")}</label>
      <input id="api-key" type="password" autocomplete="off" spellcheck="false" value=${text} onInput=${(event) => setText(event.target.value)} aria-describedby="api-key-note" />
      <p id="api-key-note"><small>${t("key.note")}</small></p>
      ${error && html`<p class="wrong" role="alert">${error}</p>`}
      <div class="dialog-foot">${key.value && html`<button type="button" onClick=${forget}>${t("key.forget")}</button>`}
        <button type="submit" class="main">${t("key.use")}</button></div>
    </form>
  </${Dialog}>`;
}
