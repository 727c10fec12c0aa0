"""Logs of runs that are gone: taken out of their stream, which would keep them for as long as its own bounds say."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable

import structlog

from pyoco_server.store.logs import LogStore
from pyoco_server.store.runs import RunStore

log = structlog.get_logger(__name__)

_REMEMBERED = 100_000
"""Of more than so many the oldest are left to the stream's own bounds."""
_AT_ONCE = 16
_ROUND_SEC = 1.0


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

    def add(self, run_ids: Iterable[str]) -> None:
        """Take note of runs that are gone."""
        self._waiting.extend(run_ids)

    async def round(self) -> None:
        """Remove logs for a bounded time; what is left is done in the next round.

        Raises:
            StoreUnavailable: NATS is away.
        """
        deadline = time.monotonic() + _ROUND_SEC
        while self._waiting and time.monotonic() < deadline:
            # What is written from here on may be of a new run with the same id.
            end = await self._logs.end()
            some = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                await asyncio.gather(*(self._remove(run_id, end) for run_id in some))
            except BaseException:
                self._waiting.extendleft(reversed(some))
                raise

    async def _remove(self, run_id: str, end: int) -> None:
        if await self._runs.get_raw(run_id) is None:
            await self._logs.remove(run_id, through=end)
