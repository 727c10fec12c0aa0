"""Refuses bodies that are larger than anything we take, before they are read."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyoco_server.errors import TooLarge
from pyoco_server.gateway.problems import problem

_FORM_OVERHEAD = 1024 * 1024


class BodyLimit:
    """ASGI middleware.

    Args:
        app: What comes after it.
        largest: Largest part that a body may carry, in bytes; forms and escapes come on top.
    """

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app = app
        self._limit = 2 * largest + _FORM_OVERHEAD

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limit:
            await self._refuse(scope, receive, send)
            return
        left = self._limit

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            # A body without a length that does not end is cut off like a client that went away.
            return message if left >= 0 else {"type": "http.disconnect"}

        await self._app(scope, counted, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = TooLarge(f"the request's body is larger than {self._limit} bytes")
        await problem(error.http_status, error.message, error.code, "Pass large data by its address.")(
            scope, receive, send
        )
