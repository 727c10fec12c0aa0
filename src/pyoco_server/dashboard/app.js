// Begins the page: the texts first, then the frame, then the stream.
import { html, render } from "./html.js";
import { learnWho } from "./api.js";
import { listen, on } from "./events.js";
import { Frame } from "./frame/frame.js";
import { loadTexts } from "./i18n.js";
import { language } from "./preferences.js";

await loadTexts(language.value);
render(html`<${Frame} />`, document.getElementById("app"));
on("hello", () => learnWho().catch(() => {})); // a refusal shows in the key field; anything else comes again
listen();
