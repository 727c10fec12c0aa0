// Where the reader is: everything is in the address behind '#', so that it can be kept, sent and gone back to.
import { signal } from "./html.js";

function read() {
  const [path, query] = location.hash.replace(/^#/, "").split("?", 2);
  return { path: path || "/", query: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

export const place = signal(read());

addEventListener("hashchange", () => {
  place.value = read();
});

/** Give the address of a place; parameters that are empty are left out. */
export function link(path, query = {}) {
  const wanted = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const parameters = new URLSearchParams(wanted).toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  return `#${path}${parameters ? `?${parameters}` : ""}`;
}

/** Go to a place; with `replace` the one before is not gone back to. */
export function go(path, query = {}, { replace = false } = {}) {
  const address = link(path, query);
  if (address === (location.hash || "#/")) return;
  if (replace) {
    history.replaceState(null, "", address);
    place.value = read();
  } else {
    location.hash = address;
  }
}

/** Match a path such as "/runs/:id"; gives its parts, or null. */
export function matched(pattern, path) {
  const wanted = pattern.split("/");
  const given = path.split("/");
  if (wanted.length !== given.length) return null;
  const parts = {};
  for (const [at, word] of wanted.entries()) {
    if (word.startsWith(":")) {
      if (!given[at]) return null;
      parts[word.slice(1)] = decoded(given[at]);
    } else if (word !== given[at]) {
      return null;
    }
  }
  return parts;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
