"""Logs of runs that are gone: taken out of their stream, which would keep them for as long as its own bounds say."""

import asyncio
from collections import deque
from collections.abc import Iterable

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.logs import LogStore
from pyoco_server.store.runs import RunStore
from pyoco_server.waiting import first_event

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
        self._news = asyncio.Event()

    def add(self, run_ids: Iterable[str]) -> None:
        """Take note of runs that are gone."""
        self._waiting.extend(run_ids)
        if self._waiting:
            self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Remove logs as runs go, until ``stop``; trouble is retried for ever."""
        while not stop.is_set():
            await first_event(_LOOK_SEC, self._news, stop)
            self._news.clear()
            try:
                while self._waiting and not stop.is_set():
                    await self.bite()
            except StoreUnavailable as error:
                log.debug("logs of runs that are gone wait for NATS", reason=error.message)
                self._news.set()
                await first_event(_RETRY_SEC, stop)
            except Exception:  # a bug: it is logged, and must not end the task
                log.exception("logs of runs that are gone could not be removed")
                await first_event(_RETRY_SEC, stop)

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
