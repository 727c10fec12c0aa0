// The texts of the page, in the reader's language. Every key stands in both catalogues; a test sees to it.
import { computed, signal } from "./html.js";
import { LANGUAGES, language } from "./preferences.js";

const catalogues = signal({});
const loading = {};

/** Fetch a language's texts; again at the next call if that failed. */
export function loadTexts(name) {
  loading[name] ??= fetch(new URL(`./i18n/${name}.json`, import.meta.url))
    .then((answer) => {
      if (!answer.ok) throw new Error(`i18n/${name}.json: ${answer.status}`);
      return answer.json();
    })
    .then((texts) => {
      catalogues.value = { ...catalogues.value, [name]: texts };
    })
    .catch((error) => {
      delete loading[name];
      throw error;
    });
  return loading[name];
}

/** Change the language once its texts are here. */
export async function chooseLanguage(name) {
  await loadTexts(name);
  language.value = name;
}

const texts = computed(() => catalogues.value[language.value] ?? catalogues.value[LANGUAGES[0]] ?? {});
const plurals = computed(() => new Intl.PluralRules(language.value));
const numbers = computed(() => new Intl.NumberFormat(language.value));

/** Give a text; `{name}` in it becomes `values.name`, numbers as the language writes them. */
export function t(key, values = {}) {
  const text = texts.value[key];
  if (text === undefined) {
    console.error(`no text for ${key}`);
    return key;
  }
  return text.replace(/\{(\w+)\}/g, (_, name) => shown(values[name]));
}

/** Give the text for a number of things: `key.one` or `key.other`, with `{n}` in it. */
export function tn(key, n, values = {}) {
  const rule = plurals.value.select(n) === "one" ? "one" : "other";
  return t(`${key}.${rule}`, { n, ...values });
}

/** Tell whether there is a text: for words that come from the server, which may know more of them. */
export function has(key) {
  return texts.value[key] !== undefined;
}

export function number(value) {
  return numbers.value.format(value);
}

function shown(value) {
  return typeof value === "number" ? number(value) : String(value ?? "");
}
