"""Flows that nothing needs any more: no run, no dead letter, and nobody who is just about to make a run of them."""

import contextlib
import time

import structlog

from pyoco_server.gateway.index.ended_runs import Roll
from pyoco_server.gateway.maintenance.letter_flows import LetterFlows
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.status import inventory

log = structlog.get_logger(__name__)

_ROUND_SEC = 1.0
_TURN_SEC = 60.0
"""Between two turns through the bucket."""


class LooseFlows:
    """Goes through the bucket of flows in turns, a few pages a round; several gateways may do it at once.

    Args:
        connection: The connection.
        flows: The flows.
        roll: The runs as the index has them.
        letters: What the dead letters need.
    """

    def __init__(self, connection: Connection, flows: FlowStore, roll: Roll, letters: LetterFlows) -> None:
        self._connection = connection
        self._bucket = connection.settings.flows_kv_bucket
        self._kept_sec = connection.settings.flow_retention_sec
        self._flows = flows
        self._roll = roll
        self._letters = letters
        self._after = 0
        self._next_turn = 0.0

    async def round(self, now: float) -> int:
        """Look at flows for a bounded time. The index must have caught up.

        Args:
            now: NATS's clock, in unix seconds.

        Returns:
            How many were removed.

        Raises:
            StoreUnavailable: NATS is away.
        """
        if time.monotonic() < self._next_turn:
            return 0
        if not self._after:
            await self._letters.tidy()
        deadline, removed = time.monotonic() + _ROUND_SEC, 0
        async with contextlib.aclosing(inventory.holdings(self._connection, self._bucket, after=self._after)) as pages:
            async for page in pages:
                old = [held for held in page if now - held.stored_at > self._kept_sec]
                loose = [held for held in old if not self._roll.needs_flow(held.key)]
                # First the runs, then the letters: a run's letter is there before the run is gone.
                if loose and not await self._letters.read_on(deadline):
                    return removed  # the next round goes on from here
                for held in loose:
                    if not await self._letters.hold(held.key) and await self._flows.remove(held.key, held.revision):
                        removed += 1
                if page:
                    self._after = page[-1].revision
                if time.monotonic() > deadline:
                    return removed
        self._after, self._next_turn = 0, time.monotonic() + _TURN_SEC
        return removed
