"""The page's files, under a name that changes with them: an upgrade never mixes old files with new ones."""

import hashlib
import re
from functools import cached_property
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_FOLDER = Path(__file__).resolve().parents[2] / "dashboard"
_FIRST = ("app.js", "views/overview/view.js", "views/runs/view.js")
_IMPORT = re.compile(r"\bfrom\s*\"(\.[^\"]+)\"")
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_FIRST = "no-cache"


class PageFiles:
    """The folder of the page.

    Args:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def digest(self) -> str:
        """Name what the files hold; read once, so a server goes on naming the files that it started with."""
        found = hashlib.sha256()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            found.update(f"{path.relative_to(self.folder).as_posix()}\0{path.stat().st_size}\0".encode())
            found.update(path.read_bytes())
        return found.hexdigest()[:16]

    @cached_property
    def modules(self) -> list[str]:
        """Name the modules that the page begins with: fetched at once, and not as each is found to import the next."""
        found: dict[str, None] = {}
        wanted = [self.folder / name for name in _FIRST]
        while wanted:
            path = wanted.pop()
            name = path.relative_to(self.folder).as_posix()
            if name not in found:
                found[name] = None
                wanted += [
                    (path.parent / other).resolve() for other in _IMPORT.findall(path.read_text(encoding="utf-8"))
                ]
        return list(found)

    def index(self) -> str:
        """Give the page itself."""
        return (self.folder / "index.html").read_text(encoding="utf-8")


PAGE = PageFiles(_FOLDER)


class PageMount(StaticFiles):
    """Serves ``<digest>/<file>`` to be kept for ever, and ``<file>`` to be asked for each time."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Give a file."""
        named, _, rest = path.partition("/")
        kept = named == PAGE.digest
        response = await super().get_response(rest if kept else path, scope)
        response.headers["Cache-Control"] = _FOR_EVER if kept else _ASK_FIRST
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
