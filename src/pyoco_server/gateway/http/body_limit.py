"""Refuses bodies that are larger than anything we take, before they are read."""

from collections.abc import Mapping

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyoco_server.errors import TooLarge
from pyoco_server.gateway.problems import problem

_FORM_OVERHEAD = 1024 * 1024


class BodyLimit:
    """ASGI middleware.

    Args:
        app: What comes after it.
        largest: Largest part that a body may carry, in bytes; forms and escapes come on top.
        files: For the paths that take a file: the largest one.
    """

    def __init__(self, app: ASGIApp, largest: int, files: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._limit = 2 * largest + _FORM_OVERHEAD
        self._files = files or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        file = self._files.get(get_route_path(scope)) if scope["method"] == "POST" else None
        limit = self._limit if file is None else file + _FORM_OVERHEAD
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            await self._refuse(file, scope, receive, send)
            return
        exchange = _Exchange(limit, receive, send)
        await self._app(scope, exchange.receive, exchange.send)
        if exchange.exceeded and not exchange.answered:
            await self._refuse(file, scope, receive, send)

    async def _refuse(self, file: int | None, scope: Scope, receive: Receive, send: Send) -> None:
        if file is None:
            error = TooLarge(
                f"the request's body is larger than {self._limit} bytes", hint="Pass large data by its address."
            )
        else:
            error = TooLarge(
                f"the file is larger than {file} bytes", hint="A setting of the server, such as PYOCO_WHEEL_MAX_BYTES."
            )
        await problem(error.http_status, error.message, error.code, error.hint)(scope, receive, send)


class _Exchange:
    """Counts a body that did not tell its length; beyond the limit the app reads no more, and its answer is dropped."""

    def __init__(self, limit: int, receive: Receive, send: Send) -> None:
        self._left = limit
        self._receive = receive
        self._send = send
        self.exceeded = False
        self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left >= 0:
            return message
        self.exceeded = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.exceeded and not self.answered:
            return  # the app took the cut for a client that went away
        self.answered = True
        await self._send(message)
