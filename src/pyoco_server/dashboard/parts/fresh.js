// What has come in stands behind a button until it is wanted, so that a list never jumps.
import { html, useEffect } from "../html.js";
import { tn } from "../i18n.js";
import { whisper } from "./announce.js";

export function FreshPill({ n, onShow }) {
  useEffect(() => {
    if (n) whisper(tn("runs.fresh", n));
  }, [n > 0]);
  const show = () => {
    scrollTo(0, 0);
    onShow();
  };
  return html`<div class="fresh">${n > 0 && html`<button type="button" class="pill" onClick=${show}>${tn("runs.fresh", n)}</button>`}</div>`;
}
