// The words of the search field, such as `status:failed tag:gpu since:1h`, and what they ask for.
import { link } from "../../router.js";

export const WORDS = ["status", "tag", "flow", "worker", "id", "since"];

/** The statuses that a reader asks for, and what they are called in a record. */
export const STATUSES = {
  waiting: ["PENDING"],
  running: ["RUNNING", "CANCELLING"],
  completed: ["COMPLETED"],
  failed: ["FAILED"],
  cancelled: ["CANCELLED"],
};
const ID = /^[A-Za-z0-9_=-]+$/;
const AGE = /^(\d{1,6})(s|m|min|h|d)$/;
const SECONDS = { s: 1, m: 60, min: 60, h: 3600, d: 86400 };

/** Read the field. Gives `{ query, wrong }`: what goes into the address, and the words that say nothing. */
export function parseSearch(text) {
  const query = {};
  const wrong = [];
  for (const [, word, quoted, plain, bare] of text.matchAll(/([a-z]+):(?:"([^"]*)"?|(\S*))|(\S+)/gi)) {
    const value = quoted ?? plain;
    if (bare !== undefined) {
      if (ID.test(bare)) query.id = bare;
      else wrong.push(bare);
    } else if (!WORDS.includes(word.toLowerCase()) || !value || !good(word.toLowerCase(), value)) {
      wrong.push(`${word}:${value}`);
    } else {
      query[word.toLowerCase()] = value;
    }
  }
  return { query, wrong };
}

function good(word, value) {
  if (word === "status") return value.toLowerCase().split(",").every((name) => name in STATUSES);
  if (word === "since") return sinceSeconds(value, 0) !== null;
  return word !== "id" || ID.test(value);
}

/** Write the field for an address. */
export function writeSearch(query) {
  const quoted = (value) => (/\s/.test(value) ? `"${value}"` : value);
  return WORDS.filter((word) => query[word]).map((word) => `${word}:${quoted(query[word])}`).join(" ");
}

/** Give the time from which `since` counts, in unix seconds: `90s 15m 1h 2d`, or a date. */
export function sinceSeconds(text, now) {
  const age = AGE.exec(text);
  if (age) return now - Number(age[1]) * SECONDS[age[2]];
  const date = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) / 1000 : NaN;
  return Number.isNaN(date) ? null : date;
}

/** Give the address of a list; the words stand in one order, so that the same list has one address. */
export function listLink(query) {
  return link("/runs", inOrder(query));
}

export function inOrder(query) {
  return Object.fromEntries(WORDS.filter((word) => query[word]).map((word) => [word, query[word]]));
}

/** The statuses that an address asks for; empty for all. */
export function statusesOf(query) {
  return (query.status ?? "").toLowerCase().split(",").flatMap((name) => STATUSES[name] ?? []);
}

/** What GET /runs is asked. */
export function askedOf(query, now) {
  const asked = { status: statusesOf(query).join(","), tag: query.tag, flow: query.flow, worker: query.worker, id: query.id };
  return { ...asked, updated_after: query.since ? sinceSeconds(query.since, now) : null };
}

/** Tell whether a list's item is one that an address asks for. */
export function lets(query, item) {
  const statuses = statusesOf(query);
  return (
    (!statuses.length || statuses.includes(item.status)) &&
    (!query.tag || item.tag === query.tag) &&
    (!query.flow || item.flow_name === query.flow) &&
    (!query.worker || item.worker_id === query.worker) &&
    (!query.id || item.run_id.startsWith(query.id))
  );
}
