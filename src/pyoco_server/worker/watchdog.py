"""Ends a worker that is alive but deaf, and only such a one."""

import time
from collections.abc import Callable

import structlog

from pyoco_server.errors import CommandFailed, StoreUnavailable
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.queue.tag_puller import TagPuller

log = structlog.get_logger(__name__)

_SUSPICIOUS_SEC = 5.0
"""Seconds without any answer to a pull, with NATS there: the server gives a sign of life at least every four."""
_SURE_SEC = 5.0
"""Seconds for which the consumers must be well meanwhile: when they get a new leader, pulls find it a little later."""
_EVERY = 1.0


class Watchdog:
    """Watches the pulls of a worker.

    Args:
        connection: The connection.
        queue: The queue.
        tags: What the worker serves.
        pullers: Gives the pullers.
    """

    def __init__(
        self, connection: Connection, queue: JobQueue, tags: list[str], pullers: Callable[[], list[TagPuller]]
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._tags = tags
        self._pullers = pullers
        self._suspected_since: float | None = None
        self._headless_at = 0.0
        """When a consumer was last without a leader: nobody got an answer then."""

    def pause(self) -> float:
        """Return the seconds between two looks."""
        return _EVERY

    async def look(self) -> None:
        """Look once.

        Raises:
            CommandFailed: NATS is there, its consumers are well, and pulls are not answered.
        """
        silent = max((self._silence(puller) for puller in self._pullers()), default=0.0)
        if silent <= _SUSPICIOUS_SEC or not await self._consumers_answer():
            self._suspected_since = None
            return
        self._suspected_since = self._suspected_since or time.monotonic()
        if time.monotonic() - self._suspected_since > _SURE_SEC:
            raise CommandFailed(
                f"NATS is reachable, but no request for a job was answered for {silent:.0f} s",
                hint="Look at GET /ready and at NATS's own log; start the worker again.",
            )

    def _silence(self, puller: TagPuller) -> float:
        up_since, unanswered_since = self._connection.up_since, puller.unanswered_since
        if up_since is None or unanswered_since is None:
            return 0.0
        return time.monotonic() - max(up_since, unanswered_since, self._headless_at)

    async def _consumers_answer(self) -> bool:
        try:
            for tag in self._tags:
                await self._queue.figures(tag)
        except StoreUnavailable as error:
            log.warning("no requests for jobs are answered, and NATS says why", reason=error.message)
            self._headless_at = time.monotonic()
            return False
        return True
