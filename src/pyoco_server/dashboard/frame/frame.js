// What stands around every view: where one can go, what is wrong, and how the reader wants it.
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { useKeys } from "../keyboard.js";
import { Announcements } from "../parts/announce.js";
import { language } from "../preferences.js";
import { HOME, ROUTES } from "../routes.js";
import { go, link, matched, place } from "../router.js";
import { allows, who } from "../session.js";
import { Banners } from "./banners.js";
import { Help } from "./help.js";
import { KeyButton } from "./key.js";
import { Pulse } from "./pulse.js";
import { Switches } from "./switches.js";
import { Page } from "./page.js";

function current(path) {
  for (const route of ROUTES) {
    const parts = matched(route.pattern, path);
    if (parts) return { route, parts };
  }
  return null;
}

/** The routes that the reader's role may see in the navigation. */
function shown() {
  return ROUTES.filter((route) => route.nav && (!route.role || allows(route.role)));
}

function Navigation({ path }) {
  const inside = (pattern) => (pattern === "/" ? path === "/" : path === pattern || path.startsWith(`${pattern}/`));
  const nav = useRef(null);
  useEffect(() => {
    // On a narrow screen there are more views than room.
    const here = nav.current.querySelector("[aria-current]");
    if (here) nav.current.scrollLeft = here.offsetLeft - nav.current.offsetLeft - (nav.current.clientWidth - here.offsetWidth) / 2;
  }, [path, who.value?.role, language.value]);
  return html`<nav ref=${nav} aria-label=${t("nav.label")}>
    ${shown().map(
      (route) => html`<a key=${route.pattern} href=${link(route.pattern)} aria-current=${inside(route.pattern) ? "page" : null}>${t(route.nav)}</a>`,
    )}
  </nav>`;
}

export function Frame() {
  const [helping, setHelping] = useState(false);
  const { path, query } = place.value;
  const found = current(path);
  useKeys(
    useMemo(() => [
      ["?", "keys.help", () => setHelping(true)],
      ...shown().filter((route) => route.keys).map((route) => [route.keys, route.nav, () => go(route.pattern)]),
    ], [who.value?.role]),
  );
  return html`
    <a class="skip" href="#main" onClick=${toMain}>${t("nav.skip")}</a>
    <header class="top">
      <a class="brand" href=${link(HOME)}>pyoco-server</a>
      <${Navigation} path=${path} />
      <div class="controls"><${Pulse} /><${Switches} onHelp=${() => setHelping(true)} /><${KeyButton} /></div>
    </header>
    <${Banners} />
    <main id="main" tabindex="-1">
      <${Page} key=${found?.route.pattern} found=${found} query=${query} />
    </main>
    <${Announcements} />
    ${helping && html`<${Help} onClose=${() => setHelping(false)} />`}`;
}

function toMain(event) {
  event.preventDefault(); // the address is the reader's place, and stays
  document.getElementById("main").focus();
}
