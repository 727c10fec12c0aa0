// Keys that do something. Views add theirs while they are shown; the help dialog lists what there is.
import { signal, useEffect } from "./html.js";

const SEQUENCE_MS = 1200;
/** Groups of `[keys, textKey, action]`, the latest last. */
export const bindings = signal([]);

let before = "";
let timer = null;

/** Bind keys such as "j", "g r" or "?" while a component is shown; the last one bound wins. */
export function useKeys(entries) {
  useEffect(() => {
    bindings.value = [...bindings.value, entries];
    return () => {
      bindings.value = bindings.value.filter((group) => group !== entries);
    };
  }, [entries]);
}

function writing(target) {
  return target instanceof HTMLElement && (target.isContentEditable || ["TEXTAREA", "SELECT"].includes(target.tagName)
    || (target.tagName === "INPUT" && !["checkbox", "radio", "button"].includes(target.type)));
}

function found(keys) {
  for (const group of bindings.value.toReversed()) {
    const entry = group.find(([wanted]) => wanted === keys);
    if (entry) return entry;
  }
  return null;
}

function begins(key) {
  return bindings.value.some((group) => group.some(([wanted]) => wanted.startsWith(`${key} `)));
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (writing(event.target) || document.querySelector("dialog[open]")) return;
  const keys = before ? `${before} ${event.key}` : event.key;
  clearTimeout(timer);
  before = "";
  const entry = found(keys) ?? found(event.key);
  if (entry) {
    // Enter on a link or button does what the link or button does.
    if (event.key === "Enter" && event.target.closest?.("a, button, summary, input")) return;
    event.preventDefault();
    entry[2](event);
  } else if (begins(event.key)) {
    before = event.key;
    timer = setTimeout(() => (before = ""), SEQUENCE_MS);
  }
});
