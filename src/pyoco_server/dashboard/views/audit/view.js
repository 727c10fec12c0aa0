// The audit trail, for admins: who changed what, from where, and who was refused.
import { html, useEffect, useMemo } from "../../html.js";
import { t } from "../../i18n.js";
import { useKeys } from "../../keyboard.js";
import { clientCommand } from "../../parts/commands.js";
import { CopyButton } from "../../parts/copy.js";
import { Empty, Trouble } from "../../parts/empty.js";
import { Icon } from "../../parts/icon.js";
import { go } from "../../router.js";
import { allows, who } from "../../session.js";
import { AuditFeed, askedOf } from "./feed.js";
import { Filters } from "./filters.js";
import { COLUMNS, Row } from "./row.js";

export function View({ query }) {
  useEffect(() => {
    document.title = `${t("nav.audit")} · pyoco-server`;
  }, []);
  if (!who.value) return html`<h1>${t("nav.audit")}</h1><p class="loading">${t("loading")}</p>`;
  if (!allows("admin")) return html`<${Empty} title=${t("audit.admins.title")} text=${t("audit.admins.text")} />`;
  return html`<${Trail} query=${query} />`;
}

function Trail({ query }) {
  const asked = JSON.stringify(askedOf(query));
  const feed = useMemo(() => new AuditFeed(query), [asked]);
  useEffect(() => {
    feed.load();
    return () => feed.stop();
  }, [feed]);
  useKeys(useMemo(() => [[".", "keys.fresh", () => feed.load()]], [feed]));
  const choose = (changes) => go("/audit", changes ? { ...askedOf(query), ...changes } : {});
  const entries = feed.entries.value;
  return html`
    <div class="head"><h1>${t("nav.audit")}</h1>
      <button type="button" disabled=${feed.state.value === "loading"} onClick=${() => feed.load()}><${Icon} name="again" />${t("audit.refresh")}</button>
      <${CopyButton} text=${clientCommand(["audit"], { ...askedOf(query), output: "table" })} label=${t("audit.copyList")} /></div>
    <${Filters} query=${askedOf(query)} onChoose=${choose} />
    ${entries.length > 0 && html`<table class="audit plain-table" aria-label=${t("nav.audit")}>
      <thead><tr>${COLUMNS.map((name) => html`<th key=${name} class=${name} scope="col">${t(`audit.column.${name}`)}</th>`)}</tr></thead>
      <tbody>${entries.map((entry) => html`<${Row} key=${entry.event_id} entry=${entry} query=${askedOf(query)} />`)}</tbody>
    </table>`}
    <${Foot} feed=${feed} filtered=${asked !== "{}"} />`;
}

function Foot({ feed, filtered }) {
  if (feed.state.value === "failed") return html`<${Trouble} error=${feed.error.value} onAgain=${() => feed.load()} />`;
  if (feed.state.value === "loading") return html`<p class="loading">${t("loading")}</p>`;
  const none = !feed.entries.value.length;
  if (feed.full) return html`<p class="end">${t("audit.many")}</p>`;
  if (feed.cursor.value !== null)
    return html`<p class="end">${none && t("audit.notYet")} <button type="button" onClick=${() => feed.next()}>${t("audit.further")}</button></p>`;
  if (!none) return html`<p class="end">${t("audit.end")}</p>`;
  return html`<${Empty} title=${t(filtered ? "audit.none.title" : "audit.first.title")} text=${t(filtered ? "audit.none.text" : "audit.first.text")} />`;
}
