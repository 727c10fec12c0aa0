// One version of a package: who uses it, where it cannot be used, and what can be done with it.
import { html, useState } from "../../html.js";
import { post, remove } from "../../api.js";
import { t, tn } from "../../i18n.js";
import { say, sayError } from "../../parts/announce.js";
import { Confirm } from "../../parts/dialog.js";
import { Icon } from "../../parts/icon.js";
import { size } from "../../parts/size.js";
import { Ago } from "../../parts/time.js";
import { keysInUse, mayChange } from "../../session.js";
import { Who } from "../../parts/who.js";

const NAMED = 4;

/** Some names, and how many more there are. */
function Workers({ names }) {
  if (!names.length) return html`<span class="none">${t("wheels.unused")}</span>`;
  const more = names.slice(NAMED);
  return html`${names.slice(0, NAMED).map((name) => html`<span key=${name} class="chip">${name}</span> `)}
    ${more.length > 0 && html`<span title=${more.join(", ")}>${tn("wheels.more", more.length)}</span>`}`;
}

function Troubles({ troubles }) {
  return troubles.map(({ worker, reason }) => html`<p key=${worker} class="wrong"><${Icon} name="warning" /> <strong>${worker}</strong>: ${reason}</p>`);
}

export function Version({ version, onChange }) {
  const { wheel, uploaded, workers, troubles } = version;
  const [asking, setAsking] = useState(false);
  const path = `/wheels/${encodeURIComponent(wheel.name)}`;
  const whose = keysInUse.value ? `?tenant=${encodeURIComponent(wheel.tenant_id ?? "")}` : ""; // empty: one that all share
  const shown = wheel.version ?? wheel.name;
  const name = `${wheel.package ?? ""} ${shown}`.trim();
  const change = async (request, said) => {
    try {
      await request();
      say(said);
    } catch (error) {
      sayError(error);
    }
    onChange();
  };
  const pinned = Boolean(wheel.pinned_at);
  const pin = () => (pinned ? change(() => remove(`${path}/pin${whose}`), t("wheels.unpinned", { name })) : change(() => post(`${path}/pin${whose}`), t("wheels.pinned.done", { name })));
  const cell = (kind, content) => html`<td class=${kind} data-label=${t(`wheels.column.${kind}`)}>${content}</td>`;
  return html`<tr data-wheel=${wheel.name} data-tenant=${wheel.tenant_id}>
    <th scope="row" class="version"><span title=${wheel.name}>${shown}</span>
      ${pinned && html` <span class="status running"><${Icon} name="pin" /><span>${t("wheels.pinned")}</span></span>`}
      ${wheel.version && html`<small class="file">${wheel.name}</small>`}</th>
    ${cell("for", wheel.tags.length ? wheel.tags.map((tag) => html`<span key=${tag} class="chip">${tag}</span> `) : t("wheels.everyone"))}
    ${cell("size", size(wheel.size_bytes))}
    ${cell("uploaded", html`<${Ago} at=${wheel.modified} />${uploaded && html`<small class="by"><${Who} event=${uploaded} /></small>`}`)}
    ${cell("workers", html`<${Workers} names=${workers} /><${Troubles} troubles=${troubles} />`)}
    ${mayChange(wheel.tenant_id ?? null) && html`<td class="acts">
      ${wheel.version && html`<button type="button" aria-label=${t(pinned ? "wheels.unpin.of" : "wheels.pin.of", { name })} title=${t(pinned ? "wheels.unpin.long" : "wheels.pin.long")} onClick=${pin}>${t(pinned ? "wheels.unpin" : "wheels.pin")}</button>`}
      <button type="button" aria-label=${t("wheels.delete.of", { name })} onClick=${() => setAsking(true)}>${t("wheels.delete")}</button>
      ${asking && html`<${Confirm} title=${t("wheels.delete.title", { name })} action=${t("wheels.delete")} onClose=${() => setAsking(false)}
        text=${workers.length ? tn("wheels.delete.used", workers.length) : t("wheels.delete.text")}
        onYes=${() => change(() => remove(path + whose), t("wheels.deleted", { name }))} />`}
    </td>`}
  </tr>`;
}
