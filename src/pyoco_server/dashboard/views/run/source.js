// What was asked for: the params, the flow.yaml, and the record itself.
import { html, useState } from "../../html.js";
import { getText } from "../../api.js";
import { t } from "../../i18n.js";
import { told } from "../../parts/problem.js";
import { Json, Value } from "../../parts/value.js";

function Fold({ title, children, onOpen }) {
  return html`<details class="fold" onToggle=${(event) => event.target.open && onOpen?.()}><summary>${title}</summary>${children}</details>`;
}

export function Source({ run, hasFlow }) {
  const [flow, setFlow] = useState(null);
  const read = () => {
    if (flow === null)
      getText(`/runs/${encodeURIComponent(run.run_id)}/yaml`).then(setFlow, (error) => setFlow(told(error)));
  };
  return html`<section class="source" aria-label=${t("run.source")}>
    <${Fold} title=${t("run.params")}><${Json} name=${t("run.params")} of=${run.params ?? {}} /></${Fold}>
    ${hasFlow && html`<${Fold} title="flow.yaml" onOpen=${read}>${flow === null ? html`<p class="loading">${t("loading")}</p>` : html`<${Value} name="flow.yaml" text=${flow} />`}</${Fold}>`}
    <${Fold} title=${t("run.record")}><${Json} name=${t("run.record")} of=${run.told} /></${Fold}>
  </section>`;
}
