// One view: fetched when it is first shown.
import { html, useEffect, useErrorBoundary, useState } from "../html.js";
import { t } from "../i18n.js";
import { Empty, Trouble } from "../parts/empty.js";
import { link } from "../router.js";
import { HOME } from "../routes.js";

const PAUSES_MS = [300, 1000];

export function Page({ found, query }) {
  const [View, setView] = useState(null);
  const [missing, setMissing] = useState(false);
  const [broken] = useErrorBoundary((error) => console.error(error));
  const route = found?.route;
  useEffect(() => {
    let here = true;
    loaded(route).then(
      (module) => here && module && setView(() => module.View),
      () => here && setMissing(true),
    );
    return () => {
      here = false;
    };
  }, [route]);
  if (!route) return html`<${NotFound} />`;
  if (missing) return html`<${Trouble} error=${{ message: t("error.files") }} onAgain=${() => location.reload()} />`;
  if (broken) return html`<${Trouble} error=${{ message: t("error.page"), hint: String(broken.message) }} onAgain=${() => location.reload()} />`;
  return View && html`<${View} ...${found.parts} query=${query} />`;
}

/** Fetch a view; a line that breaks for a moment is no reason to give up. */
async function loaded(route) {
  for (const wait of PAUSES_MS) {
    try {
      return await route?.load();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
  return route?.load();
}

function NotFound() {
  return html`<${Empty} title=${t("notFound.title")}><p><a href=${link(HOME)}>${t("notFound.back")}</a></p></${Empty}>`;
}
