// The one stream of the page: what changes among runs and workers. It comes back by itself.
import { effect, signal } from "./html.js";
import { noteServerTime } from "./clock.js";
import { key, keyWanted } from "./session.js";
import { pause, serverEvents } from "./sse.js";

const SILENCE_MS = 7000; // the server speaks every two seconds
const HIDDEN_MS = 30000;
const BACK_MS = 4000;
const PAGE = document.documentElement.dataset.page;

/** "connecting", "live", "away" (trying again), "back" (live again, just now) or "stopped" (a key is needed). */
export const connection = signal("connecting");
/** What the server says of itself: `{ nats_up, caught_up }`. */
export const health = signal({ nats_up: true, caught_up: true });
/** Runs by status, all that the key may see. */
export const counts = signal(null);
/** Whether the server has other files of this page by now. */
export const outdated = signal(false);

const listeners = new Map();
let lastId = null;
let stop = null;
let started = 0;

/**
 * Hear of a kind of event: "runs", "workers", "counts", or "reset", after which what was read before may be old.
 * Gives the function that ends it.
 */
export function on(name, listener) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(listener);
  return () => listeners.get(name).delete(listener);
}

function tell(name, data) {
  for (const listener of [...(listeners.get(name) ?? [])]) listener(data);
}

function take({ name, data, id }) {
  if (id) lastId = id;
  noteServerTime(data.ts);
  if (name === "hello") outdated.value = Boolean(PAGE) && data.page !== PAGE;
  else if (name === "counts") counts.value = data.counts;
  else if (name === "heartbeat" && (data.nats_up !== health.value.nats_up || data.caught_up !== health.value.caught_up))
    health.value = { nats_up: data.nats_up, caught_up: data.caught_up };
  tell(name, data);
}

async function once(signal, silence) {
  let first = true;
  for await (const event of serverEvents("/events", { lastId, signal })) {
    if (first) {
      first = false;
      const again = connection.value === "away";
      connection.value = again ? "back" : "live";
      if (again) setTimeout(() => connection.value === "back" && (connection.value = "live"), BACK_MS);
      if (!lastId) queueMicrotask(() => tell("reset", {})); // what is read from now on has no gap
    }
    silence.restart();
    take(event);
  }
  return !first;
}

function alarm(ring) {
  let timer = setTimeout(ring, SILENCE_MS);
  const end = () => clearTimeout(timer);
  return { end, restart: () => (end(), (timer = setTimeout(ring, SILENCE_MS))) };
}

async function follow(run, halt) {
  for (let tries = 0; run === started; tries += 1) {
    const attempt = new AbortController();
    const halted = () => attempt.abort();
    halt.addEventListener("abort", halted, { once: true });
    const silence = alarm(halted);
    try {
      if (await once(attempt.signal, silence)) tries = -1; // it was a good one, and ended
    } catch (error) {
      if (connection.value === "live" || connection.value === "back") tries = -1;
      if (error.status === 401 || error.code === "invalid_api_key") return void (connection.value = "stopped");
    } finally {
      silence.end();
      halt.removeEventListener("abort", halted);
    }
    if (run !== started) return;
    const first = connection.value === "connecting";
    connection.value = "away";
    if (first) tell("reset", {}); // those who waited for the stream try without it
    await pause(tries + 1);
  }
}

function start() {
  stop?.abort();
  stop = new AbortController();
  started += 1;
  if (connection.value === "stopped") connection.value = "connecting";
  follow(started, stop.signal);
}

function leave() {
  started += 1;
  stop?.abort();
}

/** Begin; called once. A tab that nobody sees lets go of its connection, for a browser has few to one server. */
export function listen() {
  let timer = null;
  let resting = false;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) {
      timer = setTimeout(() => {
        resting = true;
        leave();
      }, HIDDEN_MS);
    } else if (resting) {
      resting = false;
      start();
    }
  });
  effect(() => {
    key.value; // another key sees other runs: what was heard so far is of no use
    lastId = null;
    counts.value = null;
    if (keyWanted.peek()) connection.value = "stopped";
    else start();
  });
}
