"""Keeps the streams there that a gateway needs, also when NATS returns with a fresh store."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.nats.connection import Connection

log = structlog.get_logger(__name__)

_CONNECTING_SEC, _RETRY_SEC = 0.05, 0.5
_LOOK_AGAIN_SEC = 60.0
"""How often it is looked without a cause: somebody may have removed a stream."""


class StreamKeeper:
    """Makes streams that are missing.

    Args:
        connection: The connection.
        ensure: Makes them.
    """

    def __init__(self, connection: Connection, ensure: Callable[[], Awaitable[object]]) -> None:
        self._connection = connection
        self._ensure = ensure
        self._found = False
        self._told = ""
        self.made = asyncio.Event()
        """Set when all of them were there for the first time."""
        self.look = asyncio.Event()
        """Ends the pause before the next round."""
        connection.reconnected.append(self._look_again)

    async def round(self) -> None:
        """Look for them, and make what is missing.

        Raises:
            StoreUnavailable: NATS is away, or refuses.
        """
        self._found = False
        try:
            await self._ensure()
        except StoreUnavailable as error:
            # While NATS is away its connection says so; a NATS that is there and refuses is told of once.
            if self._connection.up_since is not None and error.message != self._told:
                self._told = error.message
                log.warning("a stream cannot be made; nothing works without it", reason=error.message, hint=error.hint)
            raise
        self._found = True
        self.made.set()

    def pause(self) -> float:
        """Return for how many seconds a round may wait."""
        if self._found:
            return _LOOK_AGAIN_SEC
        return _RETRY_SEC if self._connection.is_up else _CONNECTING_SEC

    async def _look_again(self) -> None:
        self.look.set()
