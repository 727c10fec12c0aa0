// Asks before a run is stopped, and for the reason.
import { html, useState } from "../../html.js";
import { post } from "../../api.js";
import { t, tn } from "../../i18n.js";
import { say, sayError } from "../../parts/announce.js";
import { Dialog } from "../../parts/dialog.js";

const LONGEST = 500;

export function CancelDialog({ runId, onClose }) {
  const [reason, setReason] = useState("");
  const cancel = async (event) => {
    event.preventDefault();
    onClose();
    try {
      await post(`/runs/${encodeURIComponent(runId)}/cancel`, reason.trim() ? { reason: reason.trim() } : {});
      say(tn("bulk.cancelled", 1));
    } catch (error) {
      sayError(error);
    }
  };
  return html`<${Dialog} title=${tn("bulk.cancel.title", 1)} onClose=${onClose}>
    <form onSubmit=${cancel}>
      <p>${t("bulk.cancel.text")}</p>
      <label for="cancel-reason">${t("run.cancelReason")}</label>
      <input id="cancel-reason" type="text" maxlength=${LONGEST} value=${reason} onInput=${(event) => setReason(event.target.value)} />
      <div class="dialog-foot"><button type="button" onClick=${onClose}>${t("back")}</button>
        <button type="submit" class="danger">${tn("bulk.cancel.yes", 1)}</button></div>
    </form>
  </${Dialog}>`;
}
