// Uploading a wheel for workers to use.
import { html, useId, useState } from "../../html.js";
import { send } from "../../api.js";
import { t } from "../../i18n.js";
import { say } from "../../parts/announce.js";
import { Dialog } from "../../parts/dialog.js";
import { told } from "../../parts/problem.js";
import { allows, who } from "../../session.js";

const DEADLINE_MS = 600000; // wheels may be large, and lines slow

export function UploadDialog({ onDone, onClose }) {
  const [file, setFile] = useState(null);
  const [tags, setTags] = useState("");
  const [tenant, setTenant] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const [fileField, tagField, tenantField, note] = [useId(), useId(), useId(), useId()];
  const own = who.value?.tenant_id; // none: there are no tenants
  const upload = async (event) => {
    event.preventDefault();
    const form = new FormData();
    form.append("wheel", file);
    if (tags.trim()) form.append("tags", tags);
    if (tenant.trim()) form.append("tenant", tenant.trim());
    setBusy(true);
    setError(null);
    try {
      const entry = await (await send("POST", "/wheels", { form, deadlineMs: DEADLINE_MS })).json();
      say(t("wheels.uploaded", { name: entry.name }));
      onClose();
      onDone();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${t("wheels.upload")} onClose=${onClose}>
    <form onSubmit=${upload}>
      <label for=${fileField}>${t("wheels.file")}</label>
      <input id=${fileField} type="file" accept=".whl" onChange=${(event) => setFile(event.target.files[0] ?? null)} />
      <label for=${tagField}>${t("wheels.tags")}</label>
      <input id=${tagField} type="text" autocomplete="off" spellcheck="false" placeholder="cpu,gpu" aria-describedby=${note} value=${tags} onInput=${(event) => setTags(event.target.value)} />
      ${own && allows("operator") && html`<label for=${tenantField}>${t("wheels.tenant")}</label>
        <input id=${tenantField} type="text" autocomplete="off" spellcheck="false" value=${tenant} onInput=${(event) => setTenant(event.target.value)} />`}
      ${own && !allows("operator") && html`<p><small>${t("wheels.tenant.own", { tenant: own })}</small></p>`}
      <p id=${note}><small>${t("wheels.upload.note")}</small></p>
      ${error && html`<div class="wrong" role="alert"><p>${told(error)}</p>${error.hint && html`<p>${error.hint}</p>`}</div>`}
      <div class="dialog-foot"><button type="button" onClick=${onClose}>${t("back")}</button>
        <button type="submit" class="main" disabled=${!file || busy}>${t(busy ? "wheels.uploading" : "wheels.upload")}</button></div>
    </form>
  </${Dialog}>`;
}
