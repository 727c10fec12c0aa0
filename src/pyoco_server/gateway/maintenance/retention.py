"""Retention: what need not be kept any longer goes, in small bites, from the index and never by a scan of the store.

Runs expire by the server's own clock where the terminal write says so. This is for what that cannot do: a bound by
number, runs that ended under other settings, and what hangs on runs that are gone. Several gateways may do it at once:
a run is removed only in the very revision that was its end.
"""

import asyncio
import math
import time

import structlog

from pyoco_server.errors import RevisionConflict, StoreFull
from pyoco_server.gateway.index.ended_runs import RollEntry
from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.gateway.maintenance.census import Census
from pyoco_server.gateway.maintenance.spent_logs import SpentLogs
from pyoco_server.gateway.maintenance.unused_flows import LooseFlows
from pyoco_server.model.run import ENDED
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.feed import BucketFeed, Change
from pyoco_server.store.runs import RunStore
from pyoco_server.store.status.stream_state import read_stream

log = structlog.get_logger(__name__)

_LATE_SEC = 10.0
"""The server's own expiry has the first word: what it has left after this is removed here."""
_YOUNG_SEC = 30.0
"""A run that ended just now is not counted: its submitter may still be asking, its worker acknowledging."""
_BITE = 500
_AT_ONCE = 50
_ROUND_SEC = 2.0


class Retention:
    """Makes its rounds.

    Args:
        settings: What is kept for how long.
        connection: The connection.
        feed: What the index is fed by; nothing is removed while it is behind.
        index: The index.
        runs: The records.
        census: Finds what the index has missed.
        spent_logs: Removes the logs of runs that are gone.
        loose_flows: Removes flows that nothing needs.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        feed: BucketFeed,
        index: RunIndex,
        runs: RunStore,
        *,
        census: Census,
        spent_logs: SpentLogs,
        loose_flows: LooseFlows,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._feed = feed
        self._index = index
        self._runs = runs
        self._census = census
        self._spent_logs = spent_logs
        self._loose_flows = loose_flows

    def pause(self) -> float:
        """Return the seconds between two rounds."""
        return self._settings.retention_interval_sec

    async def round(self) -> None:
        """Do one round, or nothing while NATS is away or the index is behind.

        Raises:
            StoreUnavailable: NATS went away.
        """
        if not self._connection.is_up or not self._feed.caught_up.is_set():
            return
        bucket = await read_stream(self._connection, f"KV_{self._settings.runs_kv_bucket}")
        if bucket is None:
            return
        self._spent_logs.add(await self._census.round(bucket.messages))
        deadline = time.monotonic() + _ROUND_SEC
        removed = 0
        for status in ENDED:
            if kept_for := self._settings.kept_for(status):
                before = bucket.now - kept_for - _LATE_SEC
                while (ended := self._index.roll.ended_before(status, before, _BITE)) and time.monotonic() < deadline:
                    removed += await self._remove(ended)
        removed += await self._keep_number(bucket.now - _YOUNG_SEC, deadline)
        if removed:
            log.info("removed runs that need not be kept", runs=removed)
        if flows := await self._loose_flows.round(bucket.now):
            log.info("removed flows that nothing needs", flows=flows)

    async def _keep_number(self, before: float, deadline: float) -> int:
        removed, allowed = 0, self._settings.run_retention_max_runs or math.inf
        while (over := self._index.roll.ended() - allowed) > 0 and time.monotonic() < deadline:
            ended = self._index.roll.first_ended(before, min(int(over), _BITE))
            if not ended:
                break
            removed += await self._remove(ended)
        return removed

    async def _remove(self, ended: list[RollEntry]) -> int:
        """Remove runs, and their rows at once; the number of those that nobody else had removed is the answer."""
        removed = 0
        for start in range(0, len(ended), _AT_ONCE):
            some = ended[start : start + _AT_ONCE]
            done = await asyncio.gather(*(self._remove_record(entry) for entry in some))
            # The row too, if it still is of that end; the feed's own word comes later and finds nothing.
            self._index.apply([Change(entry.run_id, None, entry.revision + 1) for entry in some])
            self._spent_logs.add(entry.run_id for entry in some)
            removed += sum(done)
        return removed

    async def _remove_record(self, entry: RollEntry) -> bool:
        try:
            await self._runs.remove(entry.run_id, entry.revision)
        except RevisionConflict:
            return False  # it has expired, or another gateway was here
        except StoreFull:
            # A full store refuses marks too, and for want of theirs NATS's own expiry stands still.
            return await self._runs.erase(entry.run_id, entry.revision)
        return True
