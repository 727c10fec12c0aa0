// What the search field proposes for the word that is being written.
import { get } from "../../api.js";
import { STATUSES, WORDS } from "./tokens.js";

const SINCE = ["15m", "1h", "6h", "1d", "7d"];
const MOST = 8;
const WORKERS_MS = 30000;
const MOST_SEEN = 300;
const FIELDS = { tag: "tag", flow: "flow_name", worker: "worker_id" };
const seen = { tag: new Set(), flow: new Set(), worker: new Set() };
let workers = { at: -Infinity, ids: [], tags: [] };

async function knownWorkers() {
  if (performance.now() - workers.at < WORKERS_MS) return workers;
  workers.at = performance.now();
  try {
    const found = await get("/workers", { scope: "all", limit: 100 });
    workers = { at: workers.at, ids: found.map((one) => one.worker_id), tags: found.flatMap((one) => one.tags) };
  } catch {
    // Proposals are a help, and their want no fault: the list itself tells what is wrong.
  }
  return workers;
}

/** Keep in mind what runs have been seen, so that it can be proposed. */
export function remember(items) {
  for (const [word, field] of Object.entries(FIELDS)) {
    for (const item of items) if (item[field] && seen[word].size < MOST_SEEN) seen[word].add(item[field]);
  }
}

/** Give up to eight whole words that begin as the last one of `text`. */
export async function suggestions(text) {
  const written = /(\S*)$/.exec(text)[1].toLowerCase();
  const [word, value] = written.includes(":") ? written.split(/:(.*)/s) : [written, null];
  if (value === null) return WORDS.filter((name) => name.startsWith(word)).map((name) => `${name}:`);
  const known = await knownWorkers();
  const values = {
    status: Object.keys(STATUSES),
    tag: [...seen.tag, ...known.tags],
    flow: [...seen.flow],
    worker: [...seen.worker, ...known.ids],
    since: SINCE,
  }[word];
  const wanted = value.replace(/^"/, "");
  const found = [...new Set(values ?? [])].filter((one) => one.toLowerCase().startsWith(wanted) && one !== wanted);
  const sorted = word === "status" || word === "since" ? found : found.sort();
  return sorted.slice(0, MOST).map((one) => `${word}:${/\s/.test(one) ? `"${one}"` : one}`);
}
