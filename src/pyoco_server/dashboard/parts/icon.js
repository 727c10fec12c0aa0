// Small drawings, in the colour of the text. They say nothing to a screen reader: a word stands beside each.
import { html } from "../html.js";

const PATHS = {
  pending: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 2.5V8l2.5 1.8",
  running: "M5 3.2v9.6L13 8Z",
  cancelling: "M4.5 4.5h7v7h-7Z",
  completed: "M3 8.5 6.5 12 13 4.5",
  failed: "M4 4l8 8M12 4l-8 8",
  cancelled: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2ZM4 12l8-8",
  skipped: "M3 8h2.5M7 8h2M10.5 8H13",
  other: "M8 4.5v4M8 11v.5",
  copy: "M5.5 5.5h7v7h-7ZM3.5 10.5v-7h7",
  close: "M4 4l8 8M12 4l-8 8",
  search: "M7 3a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM10 10l3.5 3.5",
  help: "M6 6.2a2 2 0 1 1 2.6 1.9c-.4.2-.6.5-.6 1v.4M8 11.8v.4",
  key: "M10.5 2.5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8.3 7.7 3 13v0h2.2M5 11l1.5 1.5",
  up: "M4 10l4-4 4 4",
  down: "M4 6l4 4 4-4",
  again: "M12.5 8A4.5 4.5 0 1 1 11 4.6M11.5 2v3h-3",
  stop: "M4 4h8v8H4Z",
  download: "M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10",
  warning: "M8 2.5 14 13H2ZM8 6.5v3M8 11.2v.3",
  link: "M6.5 9.5l3-3M7 5l1.5-1.5a2.5 2.5 0 0 1 3.6 3.6L10.5 8.6M9 11l-1.5 1.5a2.5 2.5 0 0 1-3.6-3.6l1.6-1.5",
  pin: "M6 2.5h4l-.5 4 2 2.5h-7l2-2.5ZM8 9v4.5",
  moon: "M12.5 9.5A5.5 5.5 0 0 1 6.5 3.5a5 5 0 1 0 6 6Z",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6ZM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9",
  screen: "M2.5 3.5h11v7.5h-11ZM6 13.5h4",
};
const FILLED = new Set(["running", "cancelling", "stop"]);

export function Icon({ name }) {
  const kind = FILLED.has(name) ? "icon filled" : "icon";
  return html`<svg class=${kind} viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d=${PATHS[name] ?? PATHS.other} /></svg>`;
}
