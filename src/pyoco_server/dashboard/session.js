// The reader's key, and what it allows. It lives in this tab alone, and travels in a header, never in an address.
import { BASE } from "./base.js";
import { batch, effect, signal } from "./html.js";

const NAME = `pyoco-server.key${BASE}`; // behind one proxy there may be several servers
const ROLES = ["viewer", "member", "admin", "operator"];
export const KEY_HEADER = document.documentElement.dataset.keyHeader;

export const key = signal(read());
/** What GET /whoami told; null until it has. */
export const who = signal(null);
/** Why a key is asked for: null, "required" or "refused". */
export const keyWanted = signal(null);
/** Whether this server asks for keys; once it has, the field for one stays. */
export const keysInUse = signal(false);
effect(() => {
  if (keyWanted.value !== null || (who.value?.auth_mode ?? "none") !== "none") keysInUse.value = true;
});

function read() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

export function setKey(text) {
  batch(() => {
    key.value = text.trim();
    who.value = null;
    keyWanted.value = key.value ? null : "required";
  });
  try {
    if (key.value) sessionStorage.setItem(NAME, key.value);
    else sessionStorage.removeItem(NAME);
  } catch {
    // Nothing is kept: the key is asked for again after a reload.
  }
}

/** Tell whether the reader may do what a role may. */
export function allows(role) {
  return ROLES.indexOf(who.value?.role) >= ROLES.indexOf(role);
}
