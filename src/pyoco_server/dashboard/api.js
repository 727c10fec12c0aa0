// Requests to the server that the page came from.
import { BASE } from "./base.js";
import { read } from "./json.js";
import { language } from "./preferences.js";
import { KEY_HEADER, key, keyWanted, who } from "./session.js";

const DEADLINE_MS = 15000;
const NO_KEY = 401;
const BAD_KEY = 403;

/** What went wrong, in the server's words. `status` is 0 when it could not be reached. */
export class ApiError extends Error {
  constructor(status, body) {
    super(sentence(body) || `HTTP ${status}`);
    this.status = status;
    this.code = body.code ?? "";
    this.hint = Array.isArray(body.detail) ? "" : (body.hint ?? "");
    this.traceId = body.trace_id ?? "";
  }
}

// What is wrong with several values comes as a list; its first one is the hint too, and there it is not cut.
function sentence({ detail, hint }) {
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail)) return "";
  const others = detail.slice(1).map((item) => `${(item.loc ?? []).join(".")}: ${item.msg}`);
  return [hint, ...others].filter(Boolean).join("; ");
}

export function headers(more = {}) {
  const known = { "Accept-Language": language.value, ...more };
  if (key.value) known[KEY_HEADER] = key.value;
  return known;
}

/** Make an address of this server from a path such as "/runs"; parameters that are null, undefined or empty are left out. */
export function address(path, query = {}) {
  const wanted = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const parameters = new URLSearchParams(wanted).toString();
  return BASE + path + (parameters && `${path.includes("?") ? "&" : "?"}${parameters}`);
}

/** Send a request, and give the answer itself; an error's answer is thrown as ApiError. */
export async function send(method, path, { query, body, form, signal, deadlineMs = DEADLINE_MS } = {}) {
  const options = { method, headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }) };
  if (body !== undefined) options.body = JSON.stringify(body);
  else if (form) options.body = form; // the browser writes its type, with the boundary
  const limits = [AbortSignal.timeout(deadlineMs), ...(signal ? [signal] : [])];
  let answer;
  try {
    answer = await fetch(address(path, query), { ...options, signal: AbortSignal.any(limits), cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { code: "unreachable" });
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

/** Read an answer that is an error, and ask for a key where that is what is missing. */
export async function refusal(answer) {
  const body = await answer.json().catch(() => ({}));
  const error = new ApiError(answer.status, body);
  if (error.status === NO_KEY) keyWanted.value = "required";
  if (error.status === BAD_KEY && error.code === "invalid_api_key") keyWanted.value = "refused";
  return error;
}

export async function get(path, query = {}, signal = undefined) {
  return read(await getText(path, query, signal));
}

export async function getText(path, query = {}, signal = undefined) {
  return (await send("GET", path, { query, signal })).text();
}

export async function post(path, body = undefined) {
  return read(await (await send("POST", path, { body })).text());
}

export async function patch(path, body) {
  return read(await (await send("PATCH", path, { body })).text());
}

export async function remove(path) {
  return read(await (await send("DELETE", path)).text());
}

/** Learn who the key makes of us. */
export async function learnWho() {
  who.value = await get("/whoami");
  keyWanted.value = null;
}
