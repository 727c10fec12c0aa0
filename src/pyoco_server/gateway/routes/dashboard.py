"""The page."""

import html

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse

from pyoco_server.gateway.gateway import Here
from pyoco_server.gateway.http.pagefiles import PAGE, PageMount
from pyoco_server.model.text.languages import preferred

router = APIRouter(include_in_schema=False)

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("/")
async def page(here: Here, request: Request) -> HTMLResponse:
    """Return the page in the language of the settings, or of the browser."""
    language = here.settings.dashboard_lang
    if language == "auto":
        language = preferred(request.headers.get("accept-language", ""))
    # Where no prefix is known there may be one all the same, and the address of the page ends with its slash.
    prefix = request.scope.get("root_path")
    files = html.escape(f"{prefix}/static/{PAGE.digest}" if prefix else f"static/{PAGE.digest}")
    values = {
        "language": language,
        "files": files,
        "modules": "\n".join(f'<link rel="modulepreload" href="{files}/{name}">' for name in PAGE.modules),
        "page": PAGE.digest,
        "key_header": here.settings.http_api_key_header,  # checked to be the name of a header, which needs no quoting
    }
    text = PAGE.index()
    for name, value in values.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return HTMLResponse(text, headers=_HEADERS)


def mount_static(app: FastAPI) -> None:
    """Serve the page's files."""
    app.mount("/static", PageMount(directory=PAGE.folder), name="static")
