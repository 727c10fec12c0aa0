// Values that other programs may have written: whatever they are, something that can be shown.
import { fieldText } from "../json.js";

/** Give a field as text; null for none. */
export function plain(holder, key) {
  const value = holder[key];
  if (value === null || value === undefined || value === "") return null;
  const text = fieldText(holder, key);
  return text.toWellFormed ? text.toWellFormed() : text;
}

/** Give a point in time in unix seconds, or null for what is none. */
export function moment(value) {
  return Number.isFinite(value) && value > 0 && value < 8e12 ? value : null;
}

/** The first line that says something. */
export function firstLine(text) {
  return (text ?? "").trim().split("\n", 1)[0];
}
