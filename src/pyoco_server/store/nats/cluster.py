"""What is known of the NATS servers behind a connection: whether there are several, and whether they have a leader."""

import asyncio
import time
from collections.abc import Callable

from nats.aio.client import Client

_ANOTHER_SERVER_SEC = 2.0
"""How long a call may wait until the client has found another server."""
_LOOK_AGAIN = 0.02


class Cluster:
    """The servers of one connection; a single one is a cluster too.

    Args:
        client: The client.
        down_since: Gives the unix time since when there is no connection; ``None`` while there is one.
    """

    def __init__(self, client: Client, down_since: Callable[[], float | None]) -> None:
        self._client = client
        self._down_since = down_since
        self.copies: dict[str, int] = {}
        """Replicas of each stream, as the server told them; of those that have been looked at."""
        self.stored_at = 0.0
        """Monotonic time of the last acknowledged write."""
        self.silent_since: float | None = None
        """Monotonic time since when JetStream does not answer, though a server is there."""

    @property
    def has_others(self) -> bool:
        """Whether there are more servers than one."""
        return len(self._client.servers) > 1

    @property
    def silent_for(self) -> float:
        """Seconds for which JetStream has neither answered nor stored anything, though a server is there."""
        now = time.monotonic()
        return 0.0 if self.silent_since is None else min(now - self.silent_since, now - self.stored_at)

    def has_one_copy(self, stream: str) -> bool:
        """Tell whether a stream is known to have one copy. Of several any answers a direct get, perhaps a late one."""
        return self.copies.get(stream) == 1

    async def wait_for_another(self) -> None:
        """Wait a moment for the next server, when the one that we were connected to has just gone."""
        # The client tells of both later than it knows, so there is no event to wait for.
        while not self._client.is_connected and self._may_find_another:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN)

    @property
    def _may_find_another(self) -> bool:
        away = time.time() - (self._down_since() or time.time())
        return self.has_others and away < _ANOTHER_SERVER_SEC
