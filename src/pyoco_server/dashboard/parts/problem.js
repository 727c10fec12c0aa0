// What went wrong, in a sentence.
import { has, t } from "../i18n.js";

/** Tell an ApiError in the reader's language, where there are words for its code, with the server's own beside them. */
export function told(error) {
  if (error.status === 0) return t("error.unreachable");
  if (error.code && has(`problem.${error.code}`)) return t(`problem.${error.code}`, { detail: error.message });
  return error.message || t("error.unknown");
}
