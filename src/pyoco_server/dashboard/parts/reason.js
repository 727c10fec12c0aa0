// Asks before something is done that others will wonder about, and for the reason.
import { html, useId, useState } from "../html.js";
import { t } from "../i18n.js";
import { Dialog } from "./dialog.js";

const LONGEST = 500;

/** `onYes` gets the reason, or an empty object when none was given: it is the body of the request. */
export function ReasonDialog({ title, text, action, onYes, onClose }) {
  const [reason, setReason] = useState("");
  const field = useId();
  const yes = (event) => {
    event.preventDefault();
    onClose();
    onYes(reason.trim() ? { reason: reason.trim() } : {});
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <form onSubmit=${yes}>
      <p>${text}</p>
      <label for=${field}>${t("reason")}</label>
      <input id=${field} type="text" maxlength=${LONGEST} value=${reason} onInput=${(event) => setReason(event.target.value)} />
      <div class="dialog-foot"><button type="button" onClick=${onClose}>${t("back")}</button>
        <button type="submit" class="danger">${action}</button></div>
    </form>
  </${Dialog}>`;
}
