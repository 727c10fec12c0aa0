// The list itself.
import { html, useEffect, useLayoutEffect, useRef } from "../../html.js";
import { t } from "../../i18n.js";
import { Ago } from "../../parts/time.js";
import { firstLine } from "../../parts/text.js";
import { link } from "../../router.js";
import { Reason } from "./reasons.js";

const NONE = html`<span class="none">–</span>`;
const COLUMNS = ["reason", "letter", "run", "flow", "tag", "attempts", "when", "error"];

/** Tell how often it was tried, where that is known. */
export function attempts(letter) {
  if (!Number.isInteger(letter.attempt) || letter.attempt < 1) return null;
  return Number.isInteger(letter.max_attempts) ? t("letters.attemptOf", { n: letter.attempt, most: letter.max_attempts }) : String(letter.attempt);
}

/** The address of a letter in the list that is shown now. */
export function letterLink(query, id) {
  return link("/deadletters", { ...query, letter: id });
}

export function RunLink({ runId }) {
  return runId ? html`<a href=${link(`/runs/${encodeURIComponent(runId)}`)}><code>${runId.slice(0, 13)}</code></a>` : NONE;
}

function Row({ letter, query, gone, open, selected, current, selectable, onSelect }) {
  const kind = `row ${selected ? "selected" : ""} ${current ? "current" : ""} ${open ? "open" : ""} ${gone ? "removed" : ""}`;
  return html`<tr class=${kind} data-letter=${letter.id} aria-selected=${selectable ? selected : null}>
    ${selectable && html`<td class="pick"><label><input type="checkbox" checked=${selected} disabled=${gone} aria-label=${t("letters.select", { id: String(letter.id) })}
      onClick=${(event) => onSelect(letter.id, event.shiftKey)} /></label></td>`}
    <td class="reason"><${Reason} of=${letter.reason} /></td>
    <td class="letter"><a href=${letterLink(query, letter.id)} aria-current=${open ? "true" : null} aria-label=${t("letters.open", { id: String(letter.id) })}>#${String(letter.id)}</a></td>
    <td class="run"><${RunLink} runId=${letter.run_id} /></td>
    <td class="flow" title=${letter.flow_name}>${letter.flow_name ?? NONE}</td>
    <td class="tag"><a class="chip" href=${link("/deadletters", { ...query, letter: null, tag: letter.tag })}>${letter.tag}</a></td>
    <td class="attempts">${attempts(letter) ?? NONE}</td>
    <td class="when"><${Ago} at=${letter.timestamp} /></td>
    <td class="error" title=${letter.error}>${firstLine(letter.error)}</td>
  </tr>`;
}

export function Rows({ rows, query, gone, selected, current, selectable, onSelect, onSelectAll, onEnd }) {
  const body = useRef(null);
  const end = useRef(null);
  const atEnd = useRef(onEnd);
  atEnd.current = onEnd;
  useEffect(() => {
    const watcher = new IntersectionObserver(([entry]) => entry.isIntersecting && atEnd.current(), { rootMargin: "600px" });
    watcher.observe(end.current);
    return () => watcher.disconnect();
  }, [rows.length]);
  useLayoutEffect(() => {
    if (current !== null) body.current.querySelector(`[data-letter="${current}"]`)?.scrollIntoView({ block: "nearest" });
  }, [current]);
  const pickable = rows.filter(({ id }) => !gone.has(id));
  const all = pickable.length > 0 && pickable.every(({ id }) => selected.has(id));
  return html`<div><table class="letters" aria-label=${t("nav.deadletters")}>
    <thead><tr>
      ${selectable && html`<th class="pick"><label><input type="checkbox" aria-label=${t("letters.selectAll")} checked=${all} onClick=${onSelectAll} /></label></th>`}
      ${COLUMNS.map((name) => html`<th key=${name} class=${name} scope="col">${t(`letters.column.${name}`)}</th>`)}
    </tr></thead>
    <tbody ref=${body}>${rows.map(
      (letter) => html`<${Row} key=${letter.id} letter=${letter} query=${query} gone=${gone.has(letter.id)} open=${String(letter.id) === query.letter}
        selected=${selected.has(letter.id)} current=${letter.id === current} selectable=${selectable} onSelect=${onSelect} />`,
    )}</tbody>
  </table><div ref=${end}></div></div>`;
}
