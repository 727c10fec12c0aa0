"""The texts of flow.yaml files: stored once each, under their sha256.

A text that no run needs any more is removed when it is old enough. So whoever is about to make a run has its text put
again, which makes it young: between that and the run's record nothing removes it.
"""

import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.nats.bucket import Bucket, Entry
from pyoco_server.store.nats.connection import Connection

_REMEMBERED = 1024
_YOUNG_SHARE = 0.25
"""Of the time after which an unused text is removed: what was put since then need not be put again."""
_BESIDE = 512
"""Bytes of subject and headers."""

Room = Callable[[int], contextlib.AbstractAsyncContextManager[None]]


class FlowStore:
    """The bucket of flow texts. What is in it never changes.

    Args:
        connection: The connection.
        room: Sets so many bytes aside while a text is stored, or raises if there are not.
    """

    def __init__(self, connection: Connection, room: Room = lambda _size: contextlib.nullcontext()) -> None:
        self._connection = connection
        self._room = room
        self._bucket = Bucket(connection, connection.settings.flows_kv_bucket, patient=True)
        self._young_sec = _YOUNG_SHARE * connection.settings.flow_retention_sec
        self._put_at: OrderedDict[str, float] = OrderedDict()
        self._doubtful: set[str] = set()
        connection.reconnected.append(self._doubt)

    async def put(self, body: bytes, sha256: str) -> None:
        """Store a flow's text, or make it young."""
        if await self._is_young(sha256):
            return
        began = time.monotonic()
        async with self._room(len(body) + _BESIDE):
            await self._bucket.put(sha256, body)
        self._remember(sha256, began)

    async def get(self, sha256: str) -> bytes | None:
        """Read a flow's text; ``None`` if it is not there or is not what its name says."""
        # What is there cannot be outdated, so any replica will do; only one that has nothing may be late.
        text = _checked(await self._bucket.get(sha256, perhaps_late=True), sha256)
        if text is None and not self._connection.cluster.has_one_copy(self._bucket.stream):
            text = _checked(await self._bucket.get(sha256), sha256)
        return text

    async def keep(self, sha256: str) -> bool:
        """Make a flow's text young if it is there, and tell whether it is."""
        if await self._is_young(sha256):
            return True
        body = await self.get(sha256)
        if body is not None:
            await self.put(body, sha256)
        return body is not None

    async def remove(self, sha256: str, revision: int) -> bool:
        """Remove a flow's text unless it was put again since ``revision``; tell whether it was removed.

        Raises:
            StoreUnavailable: NATS is away.
        """
        removed = await self._bucket.erase(sha256, revision)  # nobody follows this bucket
        if removed:
            self._put_at.pop(sha256, None)
        return removed

    async def _is_young(self, sha256: str) -> bool:
        put_at = self._put_at.get(sha256)
        if put_at is None or time.monotonic() - put_at >= self._young_sec:
            return False
        if sha256 in self._doubtful:
            # Any replica may tell: while a leader is being chosen, nothing can be written.
            try:
                if _checked(await self._bucket.get(sha256, perhaps_late=True), sha256) is None:
                    return False
            except StoreUnavailable:
                return False
            self._doubtful.discard(sha256)
        return True

    def _remember(self, sha256: str, put_at: float) -> None:
        self._doubtful.discard(sha256)
        self._put_at[sha256] = put_at
        self._put_at.move_to_end(sha256)
        if len(self._put_at) > _REMEMBERED:
            self._put_at.popitem(last=False)

    def forget(self) -> None:
        """Forget which texts are there: the store may be another one."""
        self._put_at.clear()

    async def _doubt(self) -> None:
        # NATS may have come back with another store.
        self._doubtful = set(self._put_at)


def _checked(entry: Entry | None, sha256: str) -> bytes | None:
    """Give an entry's text if it is what its name says."""
    return entry.value if entry is not None and hashlib.sha256(entry.value).hexdigest() == sha256 else None
