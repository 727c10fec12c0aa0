// The server's time: ages are told by it, for the reader's own clock may be wrong.
import { signal } from "./html.js";

let ahead = 0; // seconds that the server's clock is before ours
export const now = signal(Date.now() / 1000);

/** Learn what time it is there. */
export function noteServerTime(seconds) {
  ahead = seconds - Date.now() / 1000;
}

export function serverTime() {
  return Date.now() / 1000 + ahead;
}

function tick() {
  if (!document.hidden) now.value = serverTime();
}

setInterval(tick, 1000);
document.addEventListener("visibilitychange", tick);
