// What can be done with dead letters, one or many, and the questions before it.
import { html } from "../../html.js";
import { post, remove } from "../../api.js";
import { t, tn } from "../../i18n.js";
import { forEach } from "../../parts/bulk.js";
import { Confirm } from "../../parts/dialog.js";

const GONE = 404;
const ACTS = {
  replay: (id) => post(`/dlq/${id}/replay`),
  delete: (id) => remove(`/dlq/${id}`),
};

/** Ask, then do it; `onDone` gets what forEach gives, and the answers by id. */
export function LetterDialog({ act, ids, onDone, onClose }) {
  const yes = async () => {
    const answers = new Map();
    const outcome = await forEach(ids, async (id) => answers.set(id, await ACTS[act](id)), `letters.${act}.done`);
    onDone({ ...outcome, answers });
  };
  return html`<${Confirm} title=${tn(`letters.${act}.title`, ids.length)} text=${t(`letters.${act}.text`)} action=${tn(`letters.${act}.yes`, ids.length)}
    kind=${act === "delete" ? "danger" : "main"} onYes=${yes} onClose=${onClose} />`;
}

/** Take in what became of letters. */
export function settle(feed, { done, failed }) {
  feed.strike([...failed].filter(([, error]) => error.status === GONE).map(([id]) => id));
  feed.drop(done);
  if (document.activeElement === document.body) document.getElementById("main").focus(); // what was pressed is gone
}
