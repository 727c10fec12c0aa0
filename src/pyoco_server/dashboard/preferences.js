// What the reader has chosen: language, theme, and how times are told. Kept by this browser.
import { effect, signal } from "./html.js";

const PREFIX = "pyoco-server.";

function stored(name, allowed, otherwise) {
  let found = null;
  try {
    found = localStorage.getItem(PREFIX + name);
  } catch {
    // A browser that keeps nothing: the choice lasts as long as the page.
  }
  return allowed.includes(found) ? found : otherwise;
}

function kept(name, allowed, otherwise) {
  const choice = signal(stored(name, allowed, otherwise));
  let first = true;
  effect(() => {
    const value = choice.value;
    if (first) {
      first = false; // what was not chosen is not kept: a server's new default shall show
      return;
    }
    try {
      localStorage.setItem(PREFIX + name, value);
    } catch {
      // As above.
    }
  });
  return choice;
}

export const LANGUAGES = ["en", "ja"];
export const THEMES = ["system", "light", "dark"];
export const CLOCKS = ["local", "utc"];

const served = LANGUAGES.includes(document.documentElement.lang) ? document.documentElement.lang : "en";
export const language = kept("language", LANGUAGES, served);
export const theme = kept("theme", THEMES, "system");
export const clock = kept("clock", CLOCKS, "local");

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});
effect(() => {
  document.documentElement.lang = language.value;
});
