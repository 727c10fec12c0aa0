"""JSON bodies, read as strictly as they are answered."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from pyoco_server.errors import InvalidInput
from pyoco_server.model.jsontext import read_json


class StrictRoute(APIRoute):
    """A route whose JSON body is what was sent, or is refused: ``APIRouter(route_class=StrictRoute)``."""

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
            return read_json(await self.body())
        except InvalidInput as refused:
            # FastAPI lets nothing but this through; the error's handler finds the cause in it.
            raise HTTPException(refused.http_status, refused.message) from refused
