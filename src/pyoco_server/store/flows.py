"""The texts of flow.yaml files: stored once each, under their sha256."""

import contextlib
import hashlib
from collections import OrderedDict

from pyoco_server.errors import RevisionConflict
from pyoco_server.store.bucket import Bucket
from pyoco_server.store.connection import Connection

_REMEMBERED = 1024


class FlowStore:
    """The bucket of flow texts. What is in it never changes, so what was seen there is not asked again."""

    def __init__(self, connection: Connection) -> None:
        self._bucket = Bucket(connection, connection.settings.flows_kv_bucket)
        self._seen: OrderedDict[str, None] = OrderedDict()
        connection.reconnected.append(self._forget)

    async def put(self, body: bytes, sha256: str) -> None:
        """Store a flow's text unless it is there."""
        if sha256 in self._seen:
            self._seen.move_to_end(sha256)
            return
        with contextlib.suppress(RevisionConflict):  # somebody stored the same text before
            await self._bucket.create(sha256, body)
        self._remember(sha256)

    async def get(self, sha256: str) -> bytes | None:
        """Read a flow's text; ``None`` if it is not there or is not what its name says."""
        entry = await self._bucket.get(sha256)
        if entry is None or hashlib.sha256(entry.value).hexdigest() != sha256:
            return None
        return entry.value

    async def has(self, sha256: str) -> bool:
        """Tell whether a flow's text is there."""
        if sha256 in self._seen:
            self._seen.move_to_end(sha256)
            return True
        if await self.get(sha256) is None:
            return False
        self._remember(sha256)
        return True

    def _remember(self, sha256: str) -> None:
        self._seen[sha256] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def forget(self) -> None:
        """Forget which texts are there: the store may be another one."""
        self._seen.clear()

    async def _forget(self) -> None:
        # NATS may have come back with another store.
        self.forget()
