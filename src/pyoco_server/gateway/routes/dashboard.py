"""The page."""

from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from pyoco_server.gateway.languages import preferred
from pyoco_server.gateway.state import Here

router = APIRouter(include_in_schema=False)

_FILES = Path(__file__).parents[2] / "dashboard"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("/")
async def page(here: Here, request: Request) -> HTMLResponse:
    """Give the page in the language of the settings, or of the browser."""
    language = here.settings.dashboard_lang
    if language == "auto":
        language = preferred(request.headers.get("accept-language", ""))
    text = (_FILES / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(text.replace('lang="en"', f'lang="{language}"', 1), headers=_HEADERS)


def mount_static(app: FastAPI) -> None:
    """Serve the page's files."""
    app.mount("/static", StaticFiles(directory=_FILES), name="static")
