"""The texts of flow.yaml files: stored once each, under their sha256.

A text that no run needs any more is removed when it is old enough. So whoever is about to make a run has its text put
again, which makes it young: between that and the run's record nothing removes it.
"""

import hashlib
import time
from collections import OrderedDict

from pyoco_server.store.bucket import Bucket
from pyoco_server.store.connection import Connection

_REMEMBERED = 1024
_YOUNG_SHARE = 0.25
"""Of the time after which an unused text is removed: what was put since then need not be put again."""


class FlowStore:
    """The bucket of flow texts. What is in it never changes."""

    def __init__(self, connection: Connection) -> None:
        self._bucket = Bucket(connection, connection.settings.flows_kv_bucket)
        self._young_sec = _YOUNG_SHARE * connection.settings.flow_retention_sec
        self._put_at: OrderedDict[str, float] = OrderedDict()
        connection.reconnected.append(self._forget)

    async def put(self, body: bytes, sha256: str) -> None:
        """Store a flow's text, or make it young."""
        if self._is_young(sha256):
            return
        began = time.monotonic()
        await self._bucket.put(sha256, body)
        self._remember(sha256, began)

    async def get(self, sha256: str) -> bytes | None:
        """Read a flow's text; ``None`` if it is not there or is not what its name says."""
        entry = await self._bucket.get(sha256)
        if entry is None or hashlib.sha256(entry.value).hexdigest() != sha256:
            return None
        return entry.value

    async def keep(self, sha256: str) -> bool:
        """Make a flow's text young if it is there, and tell whether it is."""
        if self._is_young(sha256):
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

    def _is_young(self, sha256: str) -> bool:
        put_at = self._put_at.get(sha256)
        return put_at is not None and time.monotonic() - put_at < self._young_sec

    def _remember(self, sha256: str, put_at: float) -> None:
        self._put_at[sha256] = put_at
        self._put_at.move_to_end(sha256)
        if len(self._put_at) > _REMEMBERED:
            self._put_at.popitem(last=False)

    def forget(self) -> None:
        """Forget which texts are there: the store may be another one."""
        self._put_at.clear()

    async def _forget(self) -> None:
        # NATS may have come back with another store.
        self.forget()
