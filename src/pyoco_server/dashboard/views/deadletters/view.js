// Dead letters: what could not be run to its end, why, and how to run it again.
import { html, signal, useEffect, useMemo, useState } from "../../html.js";
import { t } from "../../i18n.js";
import { useKeys } from "../../keyboard.js";
import { clientCommand } from "../../parts/commands.js";
import { CopyButton } from "../../parts/copy.js";
import { Empty, Trouble } from "../../parts/empty.js";
import { FreshPill } from "../../parts/fresh.js";
import { Icon } from "../../parts/icon.js";
import { Selection } from "../../parts/selection.js";
import { go, link } from "../../router.js";
import { allows } from "../../session.js";
import { LetterDialog, settle } from "./actions.js";
import { SelectionBar } from "./bar.js";
import { LetterFeed, askedOf } from "./feed.js";
import { LetterPanel } from "./panel.js";
import { REASONS, reasonWord } from "./reasons.js";
import { Rows } from "./rows.js";

export function View({ query }) {
  const asked = JSON.stringify(askedOf(query)); // what matters of the address
  const feed = useMemo(() => new LetterFeed(query), [asked]);
  const selection = useMemo(() => new Selection(), [asked]);
  const current = useMemo(() => signal(null), [asked]); // the row that the keyboard is at
  const [asking, setAsking] = useState(null); // { act, ids } that the reader is asked about
  useEffect(() => {
    document.title = `${t("nav.deadletters")} · pyoco-server`;
    feed.start();
    return () => feed.stop();
  }, [feed]);
  const open = (id) => go("/deadletters", { ...query, letter: id });
  useRowKeys(feed, selection, current, open);
  const rows = feed.rows.value;
  const gone = feed.gone.value;
  const chosen = rows.map(({ id }) => id).filter((id) => selection.ids.value.has(id) && !gone.has(id));
  const pickable = () => feed.rows.value.map(({ id }) => id).filter((id) => !feed.gone.value.has(id));
  const selectAll = () => selection.set(chosen.length >= pickable().length ? [] : pickable());
  const done = (outcome) => {
    selection.set([...outcome.failed.keys()]); // what could not be done stays selected
    settle(feed, outcome);
    const [opened] = outcome.done.filter((id) => String(id) === query.letter);
    const made = opened !== undefined && outcome.answers.get(opened).run_id;
    if (made && outcome.done.length === 1) go(`/runs/${encodeURIComponent(made)}`);
    else if (opened !== undefined) open(null);
  };
  return html`
    <div class="head"><h1>${t("nav.deadletters")}</h1>
      ${query.tag && html`<a class="chip filter" href=${link("/deadletters", { ...query, tag: null })} aria-label=${t("letters.anyTag", { tag: query.tag })}>${t("column.tag")}: ${query.tag} <${Icon} name="close" /></a>`}
      <${CopyButton} text=${clientCommand(["dlq", "list"], askedOf(query))} label=${t("letters.copyList")} /></div>
    <${Tabs} query=${query} />
    <${FreshPill} n=${feed.fresh.value} onShow=${() => feed.load()} />
    <div class=${query.letter ? "with-letter" : ""}>
      <div class="list">
        ${rows.length > 0 && html`<${Rows} rows=${rows} query=${query} gone=${gone} selected=${selection.ids.value} current=${current.value} selectable=${allows("member")}
          onSelect=${(id, stretch) => selection.toggle(id, pickable(), stretch)} onSelectAll=${selectAll} onEnd=${() => feed.whole && feed.next()} />`}
        <${Foot} feed=${feed} filtered=${asked !== "{}"} />
        <${SelectionBar} ids=${chosen} onAct=${(act) => setAsking({ act, ids: chosen })} onNone=${() => selection.set([])} />
      </div>
      ${query.letter && html`<${LetterPanel} key=${query.letter} id=${query.letter} gone=${gone.has(Number(query.letter))}
        onAct=${(act, id) => setAsking({ act, ids: [id] })} onClose=${() => open(null)} />`}
    </div>
    ${asking && html`<${LetterDialog} ...${asking} onDone=${done} onClose=${() => setAsking(null)} />`}`;
}

function Tabs({ query }) {
  const tab = (reason, word) => html`<a key=${word} class="tab" href=${link("/deadletters", { reason, tag: query.tag })}
    aria-current=${(query.reason ?? "") === reason ? "true" : null}>${word}</a>`;
  return html`<nav class="tabs" aria-label=${t("letters.reasons")}>${tab("", t("tab.all"))}${REASONS.map((reason) => tab(reason, reasonWord(reason)))}</nav>`;
}

function useRowKeys(feed, selection, current, open) {
  const step = (by) => {
    const order = feed.rows.peek().map(({ id }) => id);
    const at = order.indexOf(current.peek());
    const next = order[Math.max(0, Math.min(order.length - 1, at < 0 ? 0 : at + by))];
    if (next !== undefined) current.value = next;
  };
  const select = (event) => {
    const id = current.peek();
    const order = feed.rows.peek().map((row) => row.id);
    if (id !== null && allows("member") && !feed.gone.peek().has(id)) selection.toggle(id, order, event.shiftKey);
  };
  const letGo = () => {
    if (selection.ids.peek().size) return selection.set([]);
    current.value = null;
    open(null);
  };
  useKeys(
    useMemo(() => [
      ["j", "keys.nextLetter", () => step(1)],
      ["k", "keys.letterBefore", () => step(-1)],
      ["Enter", "keys.open", () => current.peek() !== null && open(current.peek())],
      ["x", "keys.select", select],
      [".", "keys.fresh", () => feed.load()],
      ["Escape", "keys.escape", letGo],
    ], [feed]),
  );
}

function Foot({ feed, filtered }) {
  if (feed.state.value === "failed") return html`<${Trouble} error=${feed.error.value} onAgain=${() => feed.load()} />`;
  const busy = feed.state.value !== "ready";
  const none = !feed.rows.value.length;
  if (busy) return html`<p class="loading">${t("loading")}</p>`;
  if (feed.full) return html`<p class="end">${t("letters.many")}</p>`;
  if (feed.cursor.value !== null)
    return html`<p class="end">${none && t("letters.notYet")} <button type="button" onClick=${() => feed.next()}>${t("letters.further")}</button></p>`;
  if (!none) return html`<p class="end">${t("letters.end")}</p>`;
  if (filtered) return html`<${Empty} title=${t("letters.none.title")} text=${t("letters.none.text")} />`;
  return html`<${Empty} title=${t("letters.first.title")} text=${t("letters.first.text")} command=${clientCommand(["dlq", "list"], { output: "table" })} />`;
}
