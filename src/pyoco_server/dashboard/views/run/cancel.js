// Asks before a run is stopped.
import { html } from "../../html.js";
import { post } from "../../api.js";
import { t, tn } from "../../i18n.js";
import { say, sayError } from "../../parts/announce.js";
import { ReasonDialog } from "../../parts/reason.js";

export function CancelDialog({ runId, onClose }) {
  const cancel = async (body) => {
    try {
      await post(`/runs/${encodeURIComponent(runId)}/cancel`, body);
      say(tn("bulk.cancelled", 1));
    } catch (error) {
      sayError(error);
    }
  };
  return html`<${ReasonDialog} title=${tn("bulk.cancel.title", 1)} text=${t("bulk.cancel.text")} action=${tn("bulk.cancel.yes", 1)}
    onYes=${cancel} onClose=${onClose} />`;
}
