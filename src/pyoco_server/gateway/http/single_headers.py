"""Refuses a request whose headers contradict each other: which of two would count is anybody's guess.

A proxy in front may look at the first of two headers and we at the last, or the other way round. So each header that
decides something may be sent once. The same value twice does no harm.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from pyoco_server.errors import HeaderRepeated
from pyoco_server.gateway.problems import problem
from pyoco_server.settings.environment import Settings

_KEY_STATUS = 401
_STATUS = {
    b"host": 400,
    b"content-length": 400,
    b"content-type": 400,
    b"origin": 400,
    b"sec-fetch-site": 400,
    b"idempotency-key": 422,
    b"last-event-id": 422,
}
"""Those that we read and that have one value, with the answer to several."""


class SingleHeaders:
    """ASGI middleware.

    Args:
        app: What comes after it.
        settings: The header that carries the key.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._key = settings.http_api_key_header.lower().encode()
        self._status = {**_STATUS, self._key: _KEY_STATUS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        name = self._contradicted(scope) if scope["type"] == "http" else None
        if name is None:
            await self._app(scope, receive, send)
            return
        status = self._status[name]
        error = HeaderRepeated(name.decode("latin-1"))
        headers = {"WWW-Authenticate": "ApiKey"} if status == _KEY_STATUS else {}
        await problem(status, error.message, error.code, error.hint, headers=headers)(scope, receive, send)

    def _contradicted(self, scope: Scope) -> bytes | None:
        """Return the name of a header that was sent with different values; ``None`` if there is none."""
        found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in self._status and found.setdefault(name, value.strip()) != value.strip():
                return bytes(name)
        return None
