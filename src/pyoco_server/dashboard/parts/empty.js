// What stands where nothing is: it says why, and what to do next.
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Command } from "./copy.js";
import { Icon } from "./icon.js";
import { told } from "./problem.js";

export function Empty({ title, text, command, children }) {
  return html`<div class="empty">
    <h2>${title}</h2>
    ${text && html`<p>${text}</p>`}
    ${command && html`<${Command} text=${command} />`}
    ${children}
  </div>`;
}

/** What stands where something could not be read. */
export function Trouble({ error, onAgain }) {
  return html`<div class="empty trouble" role="alert">
    <h2><${Icon} name="warning" /> ${told(error)}</h2>
    ${error.hint && html`<p>${error.hint}</p>`}
    ${onAgain && html`<button type="button" onClick=${onAgain}>${t("again")}</button>`}
  </div>`;
}
