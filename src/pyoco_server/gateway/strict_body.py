"""Bodies, read as strictly as they are answered, and without holding up other requests."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData

from pyoco_server.errors import InvalidInput, PyocoError
from pyoco_server.gateway.checking.clients import Client

_MOST_FIELDS = 32
_MOST_FILES = 8


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
            separators = (await self.body()).count(b"&")
            if separators > _MOST_FIELDS:
                refused = InvalidInput(f"the form has more than {_MOST_FIELDS} fields", hint="Leave out the others.")
                raise _through(refused) from refused
        return await super()._get_form(max_files=_MOST_FILES, max_fields=_MOST_FIELDS)


def _through(refused: PyocoError) -> HTTPException:
    """Return what FastAPI lets through; the error's handler finds the cause in it."""
    return HTTPException(refused.http_status, refused.message)
