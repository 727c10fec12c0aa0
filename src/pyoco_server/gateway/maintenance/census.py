"""Rows of runs that are gone without a word: an index that was away for long may have missed their removal.

The mark of a removal stays for minutes only, or years of removals would fill the bucket. So an index that was out of
step for longer, or has more rows than the bucket has messages, is compared with what the bucket holds.
"""

import asyncio
import time
from array import array
from bisect import bisect_left

import structlog

from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.store.nats.bucket import MARK_SEC
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.feed import BucketFeed, Change
from pyoco_server.store.status import inventory

log = structlog.get_logger(__name__)

_OUT_OF_STEP_SEC = MARK_SEC * 0.7
_ROWS_AT_ONCE = 5000


class Census:
    """Compares the index with the bucket where it may have missed something.

    Args:
        connection: The connection.
        bucket: The bucket of runs.
        index: The index.
        feed: What it is fed by.
    """

    def __init__(self, connection: Connection, bucket: str, index: RunIndex, feed: BucketFeed) -> None:
        self._connection = connection
        self._bucket = bucket
        self._index = index
        self._feed = feed
        self._too_many = False

    async def round(self, messages: int) -> list[str]:
        """Look whether the index may have missed removals, and catch up on them. The feed must have caught up.

        Args:
            messages: How many the bucket's stream had a moment ago.

        Returns:
            The runs that were forgotten.

        Raises:
            StoreUnavailable: NATS is away.
        """
        now, last = time.time(), self._index.roll.in_step_at
        missed = last is not None and not 0 <= now - last < _OUT_OF_STEP_SEC
        too_many = self._index.count() > messages  # once may be by chance: a run was made in between
        forgotten: list[str] = []
        if missed or (too_many and self._too_many):
            forgotten = await self._take()
            too_many = False
        self._too_many = too_many
        self._index.roll.in_step_at = now
        return forgotten

    async def _take(self) -> list[str]:
        seen = self._feed.revision  # up to here the index knows the last state of every run
        held = await inventory.revisions(self._connection, self._bucket)
        forgotten: list[str] = []
        after, full = "", True
        while full:
            rows = self._index.roll.page(after, _ROWS_AT_ONCE)
            gone = [row for row in rows if row.revision <= seen and not _has(held, row.revision)]
            self._index.apply([Change(row.run_id, None, row.revision + 1) for row in gone])
            forgotten += [row.run_id for row in gone]
            full = len(rows) == _ROWS_AT_ONCE
            after = rows[-1].run_id if rows else ""
            await asyncio.sleep(0)  # let others run
        log.info("compared the index with the store", runs=len(held), forgotten=len(forgotten))
        return forgotten


def _has(held: "array[int]", revision: int) -> bool:
    place = bisect_left(held, revision)
    return place < len(held) and held[place] == revision
