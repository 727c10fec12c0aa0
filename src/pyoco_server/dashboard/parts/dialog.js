// A dialog: the browser's own, which keeps the focus inside and closes on Esc.
import { html, useEffect, useId, useRef } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "./icon.js";

export function Dialog({ title, onClose, children }) {
  const dialog = useRef(null);
  const heading = useId();
  useEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    return () => {
      // The browser gives the focus back where a dialog is closed, not where it is taken away.
      if (document.activeElement === document.body) (before?.isConnected ? before : document.getElementById("main")).focus();
    };
  }, []);
  const backdrop = (event) => event.target === dialog.current && onClose();
  return html`<dialog ref=${dialog} aria-labelledby=${heading} onClose=${onClose} onMouseDown=${backdrop}>
    <div class="inside">
      <div class="dialog-head"><h2 id=${heading}>${title}</h2>
        <button class="plain" type="button" aria-label=${t("close")} onClick=${() => dialog.current.close()}><${Icon} name="close" /></button>
      </div>
      ${children}
    </div>
  </dialog>`;
}

/** Ask before something that cannot be undone. */
export function Confirm({ title, text, action, kind = "danger", onYes, onClose }) {
  const yes = () => {
    onClose();
    onYes();
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <p>${text}</p>
    <div class="dialog-foot"><button type="button" onClick=${onClose}>${t("back")}</button>
      <button type="button" class=${kind} onClick=${yes}>${action}</button></div>
  </${Dialog}>`;
}
