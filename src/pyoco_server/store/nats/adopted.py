"""A connection to NATS that somebody else's program has made with nats-py, and hands over."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from typing_extensions import Self

from pyoco_server.errors import StoreRefused
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.cluster import Cluster
from pyoco_server.store.nats.connection import REQUEST_TIMEOUT, SHORT_TRY, Connection

log = structlog.get_logger(__name__)

NatsClient = Client
"""What is handed over."""
_CLOSE_SEC = 3.0
_CLOSED = "the program's own connection to NATS is closed for good"
_HINT = "Connect with max_reconnect_attempts=-1, and close the worker or client before the connection."
_Callback = Callable[..., Awaitable[None]]


class AdoptedConnection(Connection):
    """Uses a client that is connected. It reconnects as often as whoever made it said; its callbacks are still called.

    Args:
        client: The client; ``close`` closes it.
        settings: The names of what is kept in NATS. Where that is, the client knows.
        name: Shown in our log.
    """

    def __init__(self, client: Client, settings: Settings, name: str) -> None:
        super().__init__(settings, name)
        self._client = client
        self._js = JetStreamContext(client, timeout=REQUEST_TIMEOUT)
        self._js_of_short_tries = JetStreamContext(client, timeout=SHORT_TRY)
        self.cluster = Cluster(client, lambda: self.down_since)

    @property
    def client(self) -> Client:
        """The connected client.

        Raises:
            StoreUnavailable: at once, when NATS is away.
            StoreRefused: the client has given up, or the program has closed it: it does not come back.
        """
        if self._client.is_closed:
            raise StoreRefused(_CLOSED, hint=_HINT)
        return super().client

    @property
    def is_turned_away(self) -> bool:
        """Whether the client does not come back."""
        return self._client.is_closed

    @property
    def shown_url(self) -> str:
        """Where NATS is, without passwords."""
        url = self._client.connected_url
        return f"{url.scheme}://{url.hostname}:{url.port}" if url else "the address of the program's own connection"

    async def start(self) -> Self:
        """Begin to hear of what happens to the client."""
        client: Any = self._client  # nats-py takes callbacks when it connects, and that has happened
        client._error_cb = _both(self._on_error, client._error_cb)
        client._disconnected_cb = _both(self._on_disconnected, client._disconnected_cb)
        client._closed_cb = _both(self._on_closed, client._closed_cb)
        client._reconnected_cb = _both(self._on_reconnected, client._reconnected_cb)
        if self._client.is_connected:
            self._note_up()
        return self

    async def _on_closed(self) -> None:
        if not self._closing:
            log.error(_CLOSED, connection=self.name, hint=_HINT)

    async def close(self) -> None:
        """Close the client; what was published before has been sent."""
        self._closing = True
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
            await self._client.flush(timeout=2)
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
            await asyncio.wait_for(self._client.close(), _CLOSE_SEC)


def _both(ours: _Callback, theirs: _Callback | None) -> _Callback:
    async def call(*told: Any) -> None:
        await ours(*told)
        if theirs is not None:
            await theirs(*told)

    return call
