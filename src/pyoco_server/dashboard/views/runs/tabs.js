// The statuses, with how many runs each has now.
import { html } from "../../html.js";
import { number, t } from "../../i18n.js";
import { Icon } from "../../parts/icon.js";
import { STATUSES, listLink } from "./tokens.js";

const ICONS = { waiting: "pending", running: "running", completed: "completed", failed: "failed", cancelled: "cancelled" };

function sum(counts, statuses) {
  return statuses.reduce((total, status) => total + (counts[status] ?? 0), 0);
}

/** `found` is `{ counts, complete }`, or null while it is not known. */
export function Tabs({ query, found }) {
  const shown = (statuses) => (found ? `${number(sum(found.counts, statuses))}${found.complete ? "" : "+"}` : "");
  const tab = (name, statuses) => html`<a key=${name} href=${listLink({ ...query, status: name === "all" ? "" : name })}
    class="tab ${name}" aria-current=${(query.status ?? "") === (name === "all" ? "" : name) ? "true" : null}>
    ${name !== "all" && html`<${Icon} name=${ICONS[name]} />`}<span>${t(`tab.${name}`)}</span> <span class="count">${shown(statuses)}</span></a>`;
  return html`<nav class="tabs" aria-label=${t("tabs.label")}>
    ${tab("all", found ? Object.keys(found.counts) : [])}
    ${Object.entries(STATUSES).map(([name, statuses]) => tab(name, statuses))}
  </nav>`;
}
