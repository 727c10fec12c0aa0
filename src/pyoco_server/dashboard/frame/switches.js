// Language, theme and clock, and the way to the help.
import { html } from "../html.js";
import { chooseLanguage, t } from "../i18n.js";
import { sayError } from "../parts/announce.js";
import { Icon } from "../parts/icon.js";
import { CLOCKS, THEMES, clock, language, theme } from "../preferences.js";

const THEME_ICONS = { system: "screen", light: "sun", dark: "moon" };

function next(values, value) {
  return values[(values.indexOf(value) + 1) % values.length];
}

export function Switches({ onHelp }) {
  const other = language.value === "en" ? "ja" : "en";
  const toOther = () => chooseLanguage(other).catch(sayError);
  const themeText = t("switch.theme", { now: t(`theme.${theme.value}`) });
  const clockText = t("switch.clock", { now: t(`clock.${clock.value}`) });
  return html`
    <button type="button" class="plain" lang=${other} onClick=${toOther} title=${t("switch.language")}>${other === "ja" ? "日本語" : "English"}</button>
    <button type="button" class="plain" title=${clockText} aria-label=${clockText} onClick=${() => (clock.value = next(CLOCKS, clock.value))}>${t(`clock.${clock.value}.short`)}</button>
    <button type="button" class="plain" title=${themeText} aria-label=${themeText} onClick=${() => (theme.value = next(THEMES, theme.value))}><${Icon} name=${THEME_ICONS[theme.value]} /></button>
    <button type="button" class="plain" title=${t("keys.help")} aria-label=${t("keys.help")} onClick=${onHelp}><${Icon} name="help" /></button>`;
}
