"""A key-value bucket: reads, compare-and-set writes, removals."""

from dataclasses import dataclass
from datetime import datetime

from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from pyoco_server.errors import RevisionConflict
from pyoco_server.store.connection import Connection

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_OPERATION = "KV-Operation"


@dataclass(frozen=True)
class Entry:
    """A value and the revision under which it was stored."""

    key: str
    value: bytes
    revision: int
    stored_at: datetime | None = None
    """When, by NATS's clock."""


class Bucket:
    """One bucket. Keys must have been validated before they come here: they become subjects."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name
        self.stream = f"KV_{name}"
        # With replicas any of them answers a direct get, perhaps with yesterday's value: ask the leader then.
        self._direct = connection.settings.nats_replicas == 1

    def subject(self, key: str) -> str:
        """Give the subject under which a key lives."""
        return f"$KV.{self.name}.{key}"

    async def get(self, key: str) -> Entry | None:
        """Read the last value of a key; ``None`` if there is none."""
        message = await self._last(key)
        if message is None or _is_removal(message) or not message.data or not message.seq:
            return None
        return Entry(key, message.data, message.seq, message.time)

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that does not exist yet.

        Raises:
            RevisionConflict: it exists.
        """
        try:
            return await self.update(key, value, 0)
        except RevisionConflict:
            removal = await self._last(key)
            if removal is None or not _is_removal(removal) or not removal.seq:
                raise
            return await self.update(key, value, removal.seq)  # the mark of a removal counts as a value too

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write a key if ``revision`` is still its last one.

        Returns:
            The new revision.

        Raises:
            RevisionConflict: somebody else wrote first.
            StoreUnavailable: no answer; the write may or may not have happened.
        """
        return await self._publish(key, value, {_EXPECTED: str(revision)})

    async def put(self, key: str, value: bytes) -> int:
        """Write a key whatever it held."""
        return await self._publish(key, value, None)

    async def purge(self, key: str, revision: int) -> None:
        """Remove a key if ``revision`` is still its last one.

        Raises:
            RevisionConflict: somebody else wrote first.
        """
        await self._publish(key, b"", {_OPERATION: "PURGE", "Nats-Rollup": "sub", _EXPECTED: str(revision)})

    async def _last(self, key: str) -> RawStreamMsg | None:
        js = self._connection.js
        try:
            with self._connection.errors(f"reading {key} from {self.name}", missing=True):
                return await js.get_msg(self.stream, subject=self.subject(key), direct=self._direct)
        except NotFoundError:
            return None

    async def _publish(self, key: str, value: bytes, headers: dict[str, str] | None) -> int:
        js = self._connection.js
        with self._connection.errors(f"writing {key} to {self.name}"):
            return int((await js.publish(self.subject(key), value, headers=headers)).seq)


def _is_removal(message: RawStreamMsg) -> bool:
    return bool(message.headers and _OPERATION in message.headers)
