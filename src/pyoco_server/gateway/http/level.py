"""Says with each answer how much of the interface this server has."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyoco_server.model.level import HEADER, LEVEL

_LINE = (HEADER.lower().encode(), str(LEVEL).encode())


class Level:
    """ASGI middleware: adds the header.

    Args:
        app: What comes after it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], _LINE]
            await send(message)

        await self._app(scope, receive, told)
