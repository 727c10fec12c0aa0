// The search field: words such as `status:failed tag:gpu`, completed as they are written.
import { html, useEffect, useId, useMemo, useRef, useState } from "../../html.js";
import { t } from "../../i18n.js";
import { useKeys } from "../../keyboard.js";
import { Icon } from "../../parts/icon.js";
import { suggestions } from "./suggestions.js";
import { parseSearch, writeSearch } from "./tokens.js";

const WRITTEN_MS = 700;

export function Search({ query, onSearch }) {
  const address = writeSearch(query);
  const [text, setText] = useState(address);
  const [proposed, setProposed] = useState([]);
  const [chosen, setChosen] = useState(-1);
  const field = useRef(null);
  const timer = useRef(null);
  const list = useId();
  const note = useId();
  const { wrong } = parseSearch(text);

  useEffect(() => {
    // The address changed by another way than this field.
    if (writeSearch(parseSearch(text).query) !== address) setText(address);
  }, [address]);
  useEffect(() => () => clearTimeout(timer.current), []);
  useKeys(useMemo(() => [["/", "keys.search", () => field.current.select()]], []));

  const propose = async (written) => {
    const found = await suggestions(written);
    if (field.current?.value === written && document.activeElement === field.current) {
      setProposed(found);
      setChosen(-1);
    }
  };
  const search = (written) => {
    clearTimeout(timer.current);
    onSearch(parseSearch(written).query);
  };
  const write = (event) => {
    const written = event.target.value;
    setText(written);
    propose(written);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => search(written), WRITTEN_MS);
  };
  const complete = (word) => {
    const written = text.replace(/\S*$/, word) + (word.endsWith(":") ? "" : " ");
    setText(written);
    setProposed([]);
    setChosen(-1);
    field.current.focus();
    if (word.endsWith(":")) suggestions(written).then(setProposed);
    else search(written);
  };
  const press = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && proposed.length) {
      event.preventDefault();
      setChosen((chosen + step + proposed.length + (chosen < 0 && step < 0 ? 1 : 0)) % proposed.length);
    } else if (event.key === "Enter" && !event.isComposing) {
      if (chosen >= 0) complete(proposed[chosen]);
      else search(text);
      setProposed([]);
    } else if (event.key === "Tab" && chosen >= 0) {
      event.preventDefault();
      complete(proposed[chosen]);
    } else if (event.key === "Escape") {
      if (proposed.length) setProposed([]);
      else field.current.blur();
    }
  };
  const clear = () => {
    setText("");
    search("");
    field.current.focus();
  };
  const open = proposed.length > 0;
  return html`<div class="search">
    <${Icon} name="search" />
    <input ref=${field} type="text" role="combobox" aria-label=${t("search.label")} placeholder=${t("search.placeholder")}
      aria-expanded=${open} aria-controls=${list} aria-autocomplete="list" aria-describedby=${note}
      aria-activedescendant=${chosen >= 0 ? `${list}-${chosen}` : null} aria-invalid=${wrong.length > 0}
      autocomplete="off" autocapitalize="off" spellcheck="false" value=${text} onInput=${write} onKeyDown=${press}
      onFocus=${() => propose(text)} onBlur=${() => setProposed([])} />
    ${text && html`<button type="button" class="plain" aria-label=${t("search.clear")} title=${t("search.clear")} onClick=${clear}><${Icon} name="close" /></button>`}
    <ul id=${list} role="listbox" aria-label=${t("search.proposals")} hidden=${!open}>${proposed.map(
      (word, at) => html`<li key=${word} id=${`${list}-${at}`} role="option" aria-selected=${at === chosen}
        onMouseDown=${(event) => (event.preventDefault(), complete(word))}><code>${word}</code></li>`,
    )}</ul>
    <p id=${note} class="wrong" role="status">${wrong.length > 0 ? t("search.wrong", { words: wrong.join(" ") }) : ""}</p>
  </div>`;
}
