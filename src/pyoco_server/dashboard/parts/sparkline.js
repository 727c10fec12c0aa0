// A small curve within a line of text.
import { html } from "../html.js";

const WIDTH = 96;
const HEIGHT = 22;

/** `values` from the oldest to now; `label` says the same in words. */
export function Sparkline({ values, label }) {
  const most = Math.max(1, ...values);
  const x = (at) => (values.length > 1 ? (at / (values.length - 1)) * (WIDTH - 4) + 2 : WIDTH - 2);
  const y = (value) => HEIGHT - 2 - (value / most) * (HEIGHT - 4);
  const points = values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const ground = `${x(0).toFixed(1)},${HEIGHT - 2} ${points} ${WIDTH - 2},${HEIGHT - 2}`;
  return html`<svg class="sparkline" viewBox="0 0 ${WIDTH} ${HEIGHT}" width=${WIDTH} height=${HEIGHT} role="img" aria-label=${label}>
    <title>${label}</title><polygon points=${ground} /><polyline points=${points} /><circle cx=${WIDTH - 2} cy=${y(values.at(-1) ?? 0).toFixed(1)} r="1.8" />
  </svg>`;
}
