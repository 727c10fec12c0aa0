// What the run's tasks print, as they print it.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../html.js";
import { get } from "../../api.js";
import { number, t, tn } from "../../i18n.js";
import { say, sayError } from "../../parts/announce.js";
import { Icon } from "../../parts/icon.js";
import { Trouble } from "../../parts/empty.js";
import { timeOfDay, wholeTime } from "../../parts/time.js";
import { LogFeed } from "./logfeed.js";

const STREAMS = ["stdout", "stderr", "notice"];
const BLOCK = 100;

async function download(runId) {
  try {
    const { lines } = await get(`/runs/${encodeURIComponent(runId)}/logs`);
    const text = lines.map((line) => `${new Date(line.time * 1000).toISOString()} ${line.task ?? "-"} ${line.stream} ${line.text}`).join("\n");
    const address = URL.createObjectURL(new Blob([text, "\n"], { type: "text/plain" }));
    Object.assign(document.createElement("a"), { href: address, download: `${runId}.log` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    say(tn("log.downloaded", lines.length));
  } catch (error) {
    sayError(error);
  }
}

function Marked({ text, words }) {
  if (!words) return text;
  const parts = [];
  const low = text.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(words); at >= 0; at = low.indexOf(words, from)) {
    parts.push(text.slice(from, at), html`<mark>${text.slice(at, at + words.length)}</mark>`);
    from = at + words.length;
  }
  return [...parts, text.slice(from)];
}

function Line({ line, words, withTask }) {
  return html`${line.attemptBegins && html`<div class="attempt">${t("life.attempt", { n: line.attempt })}</div>`}
    <div class="line ${line.stream}"><time title=${wholeTime(line.time)}>${timeOfDay(line.time)}</time>${withTask && html`<span class="task">${line.task ?? "–"}</span>`}<span class="text"><${Marked} text=${line.text} words=${words} /></span></div>`;
}

/** `task` is the one whose lines are shown; all when it is empty. */
export function Log({ runId, tasks, task, onTask }) {
  const [stream, setStream] = useState("");
  const [words, setWords] = useState("");
  const [following, setFollowing] = useState(true);
  const feed = useMemo(() => new LogFeed(runId, { task, stream }), [runId, task, stream]);
  const frame = useRef(null);
  useEffect(() => {
    feed.follow();
    return () => feed.stop();
  }, [feed]);
  const lines = feed.lines.value;
  const low = words.toLowerCase();
  const found = (all) => (low ? all.filter((line) => line.text.toLowerCase().includes(low)) : all);
  const shown = found(lines);
  const live = found(feed.live.value);
  useLayoutEffect(() => {
    if (following) frame.current.scrollTop = frame.current.scrollHeight;
  }, [lines, feed.live.value, low, following]);
  const scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = frame.current;
    const atEnd = scrollHeight - scrollTop - clientHeight < 24;
    if (atEnd !== following) setFollowing(atEnd);
  };
  const blocks = Array.from({ length: Math.ceil(shown.length / BLOCK) }, (_, at) => shown.slice(at * BLOCK, (at + 1) * BLOCK));
  return html`<section class="log" aria-labelledby="log-title">
    <div class="log-head"><h2 id="log-title">${t("log.title")}</h2>
      <select aria-label=${t("log.task")} value=${task} onChange=${(event) => onTask(event.target.value)}>
        <option value="">${t("log.allTasks")}</option>${tasks.map((name) => html`<option key=${name} value=${name} selected=${name === task}>${name}</option>`)}</select>
      <select aria-label=${t("log.stream")} value=${stream} onChange=${(event) => setStream(event.target.value)}>
        <option value="">${t("log.allStreams")}</option>${STREAMS.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>
      <input type="search" aria-label=${t("log.search")} placeholder=${t("log.search")} value=${words} onInput=${(event) => setWords(event.target.value)} />
      <span class="found" role="status">${low ? tn("log.found", shown.length) : ""}</span>
      <label class="follow"><input type="checkbox" checked=${following} onChange=${(event) => setFollowing(event.target.checked)} />${t("log.follow")}</label>
      <button type="button" onClick=${() => download(runId)}><${Icon} name="download" />${t("log.download")}</button></div>
    ${feed.error.value && html`<${Trouble} error=${feed.error.value} />`}
    <div class="lines" ref=${frame} tabindex="0" role="log" aria-live="off" aria-label=${t("log.title")} onScroll=${scrolled}>
      ${feed.dropped.value > 0 && html`<div class="attempt">${t("log.dropped", { n: number(feed.dropped.value) })}</div>`}
      ${blocks.map((block) => html`<div key=${block[0].id} class="block">${block.map((line) => html`<${Line} key=${line.id} line=${line} words=${low} withTask=${!task} />`)}</div>`)}
      ${live.length > 0 && html`<div class="live">${live.map((line) => html`<${Line} key=${line.id} line=${line} words=${low} withTask=${!task} />`)}</div>`}
      ${!lines.length && !live.length && html`<p class="none">${t(feed.state.value === "ended" ? "log.none" : "log.waiting")}</p>`}
    </div>
  </section>`;
}
