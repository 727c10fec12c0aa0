// The wheels: which versions there are, who uploaded them, which workers use which, and what is wrong with one.
import { html, useEffect, useMemo, useState } from "../../html.js";
import { t } from "../../i18n.js";
import { clientCommand } from "../../parts/commands.js";
import { Command, CopyButton } from "../../parts/copy.js";
import { Empty, Trouble } from "../../parts/empty.js";
import { allows, mayChange } from "../../session.js";
import { WheelFeed } from "./feed.js";
import { History } from "./history.js";
import { packagesOf, usersOf } from "./packages.js";
import { Version } from "./row.js";
import { UploadDialog } from "./upload.js";

const COLUMNS = ["version", "for", "size", "uploaded", "workers"];
const WORKER = "pyoco-worker --tags cpu --worker-id cpu-1 --wheel-sync";

export function View() {
  const feed = useMemo(() => new WheelFeed(), []);
  const [uploading, setUploading] = useState(false);
  useEffect(() => {
    document.title = `${t("nav.wheels")} · pyoco-server`;
    feed.start();
    return () => feed.stop();
  }, [feed]);
  const wheels = feed.wheels.value;
  const packages = wheels && packagesOf(wheels, feed.history.value, feed.workers.value);
  return html`
    <div class="head"><h1>${t("nav.wheels")}</h1>
      <${CopyButton} text=${clientCommand(["wheels"], { output: "table" })} label=${t("wheels.copyList")} />
      ${allows("member") && html`<button type="button" class="main upload" onClick=${() => setUploading(true)}>${t("wheels.upload")}</button>`}</div>
    ${feed.error.value && html`<${Trouble} error=${feed.error.value} onAgain=${() => feed.load()} />`}
    ${!packages && !feed.error.value && html`<p class="loading">${t("loading")}</p>`}
    ${packages && !packages.length && html`<${Empty} title=${t("wheels.none.title")} text=${t("wheels.none.text")} command=${clientCommand(["wheel-upload"], { "wheel-file": "dist/NAME-VERSION-py3-none-any.whl" })} />`}
    ${packages?.length > 0 && !usersOf(feed.workers.value).length && html`<div class="advice"><p>${t("wheels.noUsers")}</p><${Command} text=${WORKER} /></div>`}
    ${packages?.map((one) => html`<${Package} key=${JSON.stringify([one.name, one.tenant])} name=${one.name} tenant=${one.tenant} versions=${one.versions} onChange=${() => feed.load()} />`)}
    <${History} events=${feed.history.value} />
    ${uploading && html`<${UploadDialog} onDone=${() => feed.load()} onClose=${() => setUploading(false)} />`}`;
}

function Package({ name, tenant, versions, onChange }) {
  const whose = tenant && t("wheels.tenant.of", { tenant });
  return html`<section class="package" aria-label=${whose ? `${name}, ${whose}` : name}>
    <h2>${name}${whose && html` <span class="chip" title=${t("wheels.tenant.long")}>${whose}</span>`}</h2>
    <table class="wheels plain-table" aria-label=${t("wheels.versions", { name: whose ? `${name}, ${whose}` : name })}>
      <thead><tr>${COLUMNS.map((column) => html`<th key=${column} class=${column} scope="col">${t(`wheels.column.${column}`)}</th>`)}
        ${mayChange(tenant) && html`<td></td>`}</tr></thead>
      <tbody>${versions.map((version) => html`<${Version} key=${version.wheel.name} version=${version} onChange=${onChange} />`)}</tbody>
    </table>
  </section>`;
}
