// The list of runs: by status, searched, live, and steered many at a time.
import { html, signal, useEffect, useMemo } from "../../html.js";
import { serverTime } from "../../clock.js";
import { counts } from "../../events.js";
import { t } from "../../i18n.js";
import { useKeys } from "../../keyboard.js";
import { clientCommand } from "../../parts/commands.js";
import { Empty, Trouble } from "../../parts/empty.js";
import { FreshPill } from "../../parts/fresh.js";
import { Selection } from "../../parts/selection.js";
import { go } from "../../router.js";
import { allows } from "../../session.js";
import { ListCommand, SelectionBar } from "./bar.js";
import { RunFeed } from "./feed.js";
import { Rows } from "./rows.js";
import { Search } from "./search.js";
import { remember } from "./suggestions.js";
import { Tabs } from "./tabs.js";
import { askedOf, inOrder, writeSearch } from "./tokens.js";

const FIRST_RUN = clientCommand(["submit-yaml"], { "workflow-file": "flow.yaml", "flow-name": "main", tag: "cpu" });

export function View({ query }) {
  const asked = writeSearch(query); // what matters of the address
  const feed = useMemo(() => new RunFeed(query), [asked]);
  const selection = useMemo(() => new Selection(), [asked]);
  const current = useMemo(() => signal(null), [asked]); // the row that the keyboard is at
  useEffect(() => remember(feed.rows.value.map((row) => row.peek())), [feed.rows.value]);
  useEffect(() => {
    document.title = `${t("nav.runs")} · pyoco-server`;
    feed.start();
    return () => feed.stop();
  }, [feed]);
  const rows = feed.rows.value;
  const ids = () => feed.rows.value.map((row) => row.peek().run_id);
  useRowKeys(feed, selection, current, ids);
  const search = (wanted) => go("/runs", inOrder(wanted));
  const found = feed.counts.value ?? (counts.value && { counts: counts.value, complete: true });
  const selectAll = () => selection.set(selection.ids.value.size >= rows.length ? [] : ids());
  return html`
    <div class="head"><h1>${t("nav.runs")}</h1>
      <${Search} query=${query} onSearch=${search} />
      <${ListCommand} query=${query} asked=${askedOf(query, serverTime())} /></div>
    <${Tabs} query=${query} found=${found} />
    <${FreshPill} n=${feed.fresh.value.size} onShow=${() => feed.load()} />
    <${SelectionBar} ids=${selection.ids.value} feed=${feed} onDone=${() => selection.set([])} />
    ${rows.length > 0 && html`<${Rows} rows=${rows} selected=${selection.ids.value} current=${current.value} selectable=${allows("member")}
      onSelect=${(id, stretch) => selection.toggle(id, ids(), stretch)} onSelectAll=${selectAll} onEnd=${() => feed.next()} />`}
    <${Foot} feed=${feed} asked=${asked} />`;
}

function useRowKeys(feed, selection, current, ids) {
  const step = (by) => {
    const order = ids();
    const at = order.indexOf(current.peek());
    const next = order[Math.max(0, Math.min(order.length - 1, at < 0 ? 0 : at + by))];
    if (next) current.value = next;
  };
  const select = (event) => current.peek() && allows("member") && selection.toggle(current.peek(), ids(), event.shiftKey);
  const letGo = () => {
    selection.set([]);
    current.value = null;
  };
  useKeys(
    useMemo(() => [
      ["j", "keys.down", () => step(1)],
      ["k", "keys.up", () => step(-1)],
      ["Enter", "keys.open", () => current.peek() && go(`/runs/${encodeURIComponent(current.peek())}`)],
      ["x", "keys.select", select],
      [".", "keys.fresh", () => feed.load()],
      ["Escape", "keys.escape", letGo],
    ], [feed]),
  );
}

function Foot({ feed, asked }) {
  if (feed.state.value === "failed") return html`<${Trouble} error=${feed.error.value} onAgain=${() => feed.load()} />`;
  if (!feed.rows.value.length) {
    if (feed.state.value !== "ready") return html`<p class="loading">${t("loading")}</p>`;
    if (asked) return html`<${Empty} title=${t("runs.none.title")} text=${t("runs.none.text")} />`;
    return html`<${Empty} title=${t("runs.first.title")} text=${t("runs.first.text")} command=${FIRST_RUN} />`;
  }
  if (feed.more.value) return html`<p class="loading">${t("loading")}</p>`;
  return html`<p class="end">${feed.cursor ? t("runs.many") : t("runs.end")}</p>`;
}
