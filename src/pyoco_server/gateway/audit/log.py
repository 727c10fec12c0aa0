"""What becomes of an entry of the audit trail: a line of the log at once, and a message in the stream soon after."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.audit import AuditEntry
from pyoco_server.process.supervision import Supervisor
from pyoco_server.process.waiting import first_event
from pyoco_server.store.audit import AuditTrail

log = structlog.get_logger(__name__)

_MOST_WAITING = 20_000
"""About 20 MB; while NATS is away changes are few, for nearly all of them need it."""
_AT_ONCE = 500
_RETRY_SEC = 0.5
_TELL_SEC = 10.0
_IDLE_SEC = 3600.0
_GATHER_SEC = 0.1
"""What comes within this time is stored together."""
_LAST_SEC = 3.0


class AuditLog:
    """Takes entries without making anybody wait, and stores them in the order in which they came.

    Args:
        trail: Where they go.
        count_lost: Counts the entries for which there was no room.
    """

    def __init__(self, trail: AuditTrail, count_lost: Callable[[int], None]) -> None:
        self._trail = trail
        self._count_lost = count_lost
        self._waiting: deque[AuditEntry] = deque()
        self._came = asyncio.Event()
        self._lost = 0
        self._told_at = float("-inf")
        self._closing = asyncio.Event()
        self.supervisor = Supervisor(self._closing)
        """Its own: it goes on until everybody else has stopped."""

    def start(self) -> None:
        """Begin to store."""
        self.supervisor.every("audit", self._round, self._pause, self._came)

    async def close(self) -> None:
        """Store what is left, for a few seconds at most; the log has it in any case."""
        self._closing.set()
        await self.supervisor.close(_LAST_SEC)
        with contextlib.suppress(StoreUnavailable, asyncio.TimeoutError):  # told of below
            await asyncio.wait_for(self._store(), _LAST_SEC)
        if self._waiting:
            self._tell("the server stops", lost=len(self._waiting), now=True)

    def add(self, entry: AuditEntry) -> None:
        """Log an entry, and have it stored."""
        log.info(f"{entry.action.value} {entry.outcome.value}", _event="audit", **_fields(entry))
        if len(self._waiting) >= _MOST_WAITING:
            self._tell("too many wait", lost=1)
            return
        self._waiting.append(entry)
        self._came.set()

    async def _round(self) -> None:
        if self._waiting:
            await first_event(_GATHER_SEC, self._closing)
        try:
            await self._store()
        except StoreUnavailable as error:
            self._tell(error.message)

    def _pause(self) -> float:
        return _RETRY_SEC if self._waiting else _IDLE_SEC

    async def _store(self) -> None:
        """Store all that waits.

        Raises:
            StoreUnavailable: what was not stored waits on.
        """
        while self._waiting:
            some = list(islice(self._waiting, _AT_ONCE))
            await self._trail.store_all(some)
            for _ in some:
                self._waiting.popleft()

    def _tell(self, reason: str, *, lost: int = 0, now: bool = False) -> None:
        """Log that the trail has trouble, every few seconds at most."""
        self._count_lost(lost)
        self._lost += lost
        if now or time.monotonic() - self._told_at >= _TELL_SEC:
            self._told_at = time.monotonic()
            tell = log.error if self._lost else log.warning
            tell("the audit trail cannot be stored", reason=reason, waiting=len(self._waiting), lost=self._lost)
            self._lost = 0


def _fields(entry: AuditEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_none=True)
