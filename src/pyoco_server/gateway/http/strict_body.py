"""Bodies, read as strictly as they are answered, and without holding up other requests."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote_plus, unquote_to_bytes

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData

from pyoco_server.errors import InvalidInput, PyocoError
from pyoco_server.gateway.access.client import Client

_MOST_FIELDS = 32
_MOST_FILES = 8
_PIECE = 8 * 1024


class StrictRoute(APIRoute):
    """A route whose body is what was sent, or is refused: ``APIRouter(route_class=StrictRoute)``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, with our reader of bodies before it."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


class _StrictRequest(Request):
    async def json(self) -> Any:
        try:
            return await self.app.state.gateway.checker.read_json(await self.body(), Client(self))
        except PyocoError as refused:
            raise _through(refused) from refused

    async def _get_form(self, **_: Any) -> FormData:
        """Read a form of few parts: the parsers of forms take long for each of them."""
        if self.headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded"):
            fields = [field for field in (await self.body()).split(b"&", _MOST_FIELDS + 1) if field]
            if len(fields) > _MOST_FIELDS:
                refused = InvalidInput(f"the form has more than {_MOST_FIELDS} fields", hint="Leave out the others.")
                raise _through(refused) from refused
            parts = [field.decode("latin-1").partition("=") for field in fields]
            self._form = FormData([(await _unquoted(name), await _unquoted(value)) for name, _, value in parts])
            return self._form
        return await super()._get_form(max_files=_MOST_FILES, max_fields=_MOST_FIELDS)


async def _unquoted(text: str) -> str:
    """Read what a form has escaped, a piece at a time: others get their turn between."""
    if len(text) <= _PIECE:
        return unquote_plus(text)
    pieces, begin = bytearray(), 0
    while begin < len(text):
        end = begin + _PIECE
        end -= next((back for back in (1, 2) if text[end - back : end - back + 1] == "%"), 0)  # no escape is cut
        pieces += unquote_to_bytes(text[begin:end].replace("+", " "))
        begin = end
        await asyncio.sleep(0)
    return pieces.decode("utf-8", "replace")


def _through(refused: PyocoError) -> HTTPException:
    """Return what FastAPI lets through; the error's handler finds the cause in it."""
    return HTTPException(refused.http_status, refused.message)
