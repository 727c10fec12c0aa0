// Server-sent events read by fetch, which can send the key in a header where EventSource cannot.
import { address, headers, refusal } from "./api.js";
import { read } from "./json.js";

/**
 * Give the events of one connection as `{ name, data, id }`, until it ends or is aborted.
 * Throws what fetch throws, and ApiError for an answer that is none.
 */
export async function* serverEvents(path, { query, lastId, signal }) {
  const wanted = { Accept: "text/event-stream" };
  if (lastId) wanted["Last-Event-ID"] = lastId;
  const answer = await fetch(address(path, query), { headers: headers(wanted), signal, cache: "no-store" });
  if (!answer.ok) throw await refusal(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parsed(block);
      if (event) yield event;
    }
  }
}

function parsed(block) {
  const event = { name: "message", data: "", id: null };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 1) continue; // a comment, or nothing
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "event") event.name = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data += (event.data && "\n") + value;
  }
  return event.data ? { ...event, data: read(event.data) } : null;
}

/** Wait, doubled with each try, and never in step with other pages. */
export function pause(tries, mostMs = 10000) {
  const ms = Math.min(mostMs, 500 * 2 ** Math.min(tries, 6)) * (0.7 + Math.random() * 0.6);
  return new Promise((resolve) => setTimeout(resolve, ms));
}
