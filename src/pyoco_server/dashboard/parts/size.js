// Amounts of memory.
import { number } from "../i18n.js";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Write a number of bytes with as many figures as help. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const step = Math.min(UNITS.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const amount = bytes / 1024 ** step;
  return `${number(amount < 10 && step ? Math.round(amount * 10) / 10 : Math.round(amount))} ${UNITS[step]}`;
}
