"""Room for what must be written though NATS is full: the oldest logs go.

Whatever fills a store, a run's end, a cancel and a worker's heartbeat still have to be written. nats-server refuses
every write while its limit is exceeded, even one that would make a record smaller; only what removes messages without a
mark works. Logs are what is lost least with: their stream drops its oldest messages for want of room in any case.
"""

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.monitoring.storage_limits import Tank
from pyoco_server.store.logs import LogStore

log = structlog.get_logger(__name__)

AT_ONCE = 4 * 1024 * 1024
"""Bytes that are made free where nothing tells how much is missing: a server lets what is on its way overrun its limit,
by a message for each writer."""
_LEAST_SHARE = 0.02
_LEAST_BYTES = 64 * 1024 * 1024


class Relief:
    """Drops logs where there is hardly any room left.

    Args:
        logs: The logs.
    """

    def __init__(self, logs: LogStore) -> None:
        self._logs = logs

    async def look_after(self, tanks: list[Tank]) -> None:
        """Keep some room free in each of what fills up, as far as logs take it."""
        missing = max((_missing(tank) for tank in tanks), default=0)
        if missing > 0:
            await self.free(missing)

    async def free(self, size: int = AT_ONCE) -> int:
        """Drop the oldest logs; how many bytes that has freed is the answer.

        Args:
            size: How many bytes are wanted.
        """
        try:
            freed = await self._logs.drop_oldest(size)
        except StoreUnavailable as error:
            log.warning("NATS is full, and its oldest logs cannot be dropped", reason=error.message)
            return 0
        if freed:
            log.warning("NATS is full: dropped the oldest logs, so that runs can end", freed_bytes=freed)
        return freed


def _missing(tank: Tank) -> int:
    least = min(tank.limit * _LEAST_SHARE, _LEAST_BYTES)
    free = tank.limit - tank.used
    return int(2 * least - free) if free < least else 0
