"""Logs of runs that are gone: taken out of their stream, which would keep them for as long as its own bounds say."""

import asyncio
from collections import deque
from collections.abc import Iterable

import structlog

from pyoco_server.store.logs import LogStore
from pyoco_server.store.runs import RunStore

log = structlog.get_logger(__name__)

_REMEMBERED = 100_000
"""Of more than so many the oldest are left to the stream's own bounds."""
_BITE = 256
_AT_ONCE = 16
_RETRY_SEC = 2.0
_LOOK_SEC = 60.0


class SpentLogs:
    """Removes the logs of forgotten runs; several gateways may do the same work at once.

    Args:
        runs: The records.
        logs: The logs.
    """

    def __init__(self, runs: RunStore, logs: LogStore) -> None:
        self._runs = runs
        self._logs = logs
        self._waiting: deque[str] = deque(maxlen=_REMEMBERED)
        self._stuck = False
        self.news = asyncio.Event()

    def add(self, run_ids: Iterable[str]) -> None:
        """Take note of runs that are gone."""
        self._waiting.extend(run_ids)
        if self._waiting:
            self.news.set()

    async def round(self) -> None:
        """Remove the logs of some of the runs that wait for it.

        Raises:
            StoreUnavailable: NATS is away; they wait on.
        """
        self._stuck = True
        if self._waiting:
            await self.bite()
        self._stuck = False

    def pause(self) -> float:
        """Return for how many seconds a round may wait; ``news`` ends it early."""
        if self._waiting:
            return _RETRY_SEC if self._stuck else 0.0
        return _LOOK_SEC

    async def bite(self) -> None:
        """Remove the logs of the runs that have waited longest, a few hundred at most.

        Raises:
            StoreUnavailable: NATS is away; they wait on.
        """
        # What is written from here on may be of a new run with the same id.
        end = await self._logs.end()
        some = [self._waiting.popleft() for _ in range(min(_BITE, len(self._waiting)))]
        left = iter(some)

        async def remove() -> None:
            for run_id in left:
                if await self._runs.get_raw(run_id) is None:
                    await self._logs.remove(run_id, through=end)

        try:
            await asyncio.gather(*(remove() for _ in range(_AT_ONCE)))
        except BaseException:
            self._waiting.extendleft(reversed(some))
            raise
