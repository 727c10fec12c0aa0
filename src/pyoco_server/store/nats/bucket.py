"""A key-value bucket: reads, compare-and-set writes, removals, values that expire."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog
from nats.js.api import RawStreamMsg
from nats.js.errors import APIError

from pyoco_server.errors import RevisionConflict, StoreUnavailable
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import purge_subject
from pyoco_server.store.nats.messages import publish, read

log = structlog.get_logger(__name__)

MARK_SEC = 300
"""Seconds for which the mark of a removal stays: whoever follows a bucket must not be away for longer, or look anew."""
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_OPERATION = "KV-Operation"
_EXPIRES = "Nats-TTL"
_REMOVALS = (_OPERATION, "Nats-Marker-Reason")
"""Headers of what is no value: a client's own mark, and the server's when a value has expired."""
_NO_EXPIRY = 10166
_ASK_AGAIN_SEC = 60.0
_CREATE_TRIES = 3


@dataclass(frozen=True)
class Entry:
    """A value and the revision under which it was stored."""

    key: str
    value: bytes
    revision: int
    stored_at: datetime | None = None
    """When, by NATS's clock."""


class Bucket:
    """One bucket. Keys must have been validated before they come here: they become subjects.

    Args:
        connection: The connection.
        name: The bucket's name.
        patient: Whether to wait for a leader that is being chosen.
    """

    def __init__(self, connection: Connection, name: str, *, patient: bool = False) -> None:
        self._connection = connection
        self.name = name
        self.stream = f"KV_{name}"
        self._patient = patient
        self._no_expiry_until = 0.0

    def subject(self, key: str) -> str:
        """Give the subject under which a key lives."""
        return f"$KV.{self.name}.{key}"

    async def get(self, key: str, *, perhaps_late: bool = False) -> Entry | None:
        """Read the last value of a key; ``None`` if there is none.

        Args:
            key: The key.
            perhaps_late: Ask any replica: it answers also while there is no leader, and may be a little behind.
        """
        message = await self._last(key, perhaps_late=perhaps_late)
        if message is None or is_removal(message.headers) or not message.seq:
            return None
        return Entry(key, message.data or b"", message.seq, message.time)

    async def create(self, key: str, value: bytes, *, expires: int | None = None) -> int:
        """Write a key that does not exist (any more).

        Args:
            key: The key.
            value: What it is to hold.
            expires: Seconds after which the server removes it; ``None``: never.

        Raises:
            RevisionConflict: it exists.
        """
        expected = 0
        for _ in range(_CREATE_TRIES):
            try:
                return await self.update(key, value, expected, expires=expires)
            except RevisionConflict:
                last = await self._last(key)
                if last is not None and not is_removal(last.headers):
                    raise
                expected = last.seq or 0 if last else 0  # the mark of a removal counts as a value too, while it stays
        raise RevisionConflict(f"writing {key} to {self.name}: it is made and removed all the time")

    async def update(self, key: str, value: bytes, revision: int, *, expires: int | None = None) -> int:
        """Write a key if ``revision`` is still its last one.

        Args:
            key: The key.
            value: What it is to hold.
            revision: Its last one; 0 if it must not exist.
            expires: Seconds after which the server removes it; ``None``: never.

        Returns:
            The new revision.

        Raises:
            RevisionConflict: somebody else wrote first.
            StoreUnavailable: no answer; the write may or may not have happened.
        """
        return await self._publish(key, value, {_EXPECTED: str(revision)}, expires)

    async def put(self, key: str, value: bytes) -> int:
        """Write a key whatever it held."""
        return await self._publish(key, value, {})

    async def purge(self, key: str, revision: int) -> int:
        """Remove a key if ``revision`` is still its last one; a mark tells of it for ``MARK_SEC``.

        Returns:
            The mark's revision.

        Raises:
            RevisionConflict: somebody else wrote first.
        """
        mark = {_OPERATION: "PURGE", "Nats-Rollup": "sub", _EXPECTED: str(revision)}
        return await self._publish(key, b"", mark, MARK_SEC)

    async def erase(self, key: str, revision: int) -> bool:
        """Remove a key if ``revision`` is still its last one, without a mark; tell whether it was removed.

        Raises:
            StoreUnavailable: NATS is away.
        """
        return await purge_subject(self._connection, self.stream, self.subject(key), through=revision) > 0

    async def _last(self, key: str, *, perhaps_late: bool = False) -> RawStreamMsg | None:
        what, subject = f"reading {key} from {self.name}", self.subject(key)
        return await read(
            self._connection, self.stream, what=what, subject=subject, late=perhaps_late, patient=self._patient
        )

    async def _publish(self, key: str, value: bytes, headers: dict[str, str], expires: int | None = None) -> int:
        subject, what = self.subject(key), f"writing {key} to {self.name}"
        if expires is not None and time.monotonic() >= self._no_expiry_until:
            try:
                expiring = {**headers, _EXPIRES: str(expires)}
                return await publish(self._connection, subject, value, expiring, what=what, patient=self._patient)
            except StoreUnavailable as error:
                if not isinstance(error.__cause__, APIError) or error.__cause__.err_code != _NO_EXPIRY:
                    raise
                self._note_no_expiry()
        return await publish(self._connection, subject, value, headers or None, what=what, patient=self._patient)

    def _note_no_expiry(self) -> None:
        """Write without expiry for a while: whoever made the bucket did not allow it."""
        if not self._no_expiry_until:
            log.warning(
                "a bucket was made without expiry (allow_msg_ttl): gateways remove what expires, and each removal "
                "leaves a mark that stays",
                bucket=self.name,
            )
        self._no_expiry_until = time.monotonic() + _ASK_AGAIN_SEC


def is_removal(headers: Mapping[str, str] | None) -> bool:
    """Tell by its headers whether a message stands for a removed or expired value."""
    return headers is not None and any(name in headers for name in _REMOVALS)
