"""How many runs waited for each tag in the last minutes, for the small curves of the page."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from pyoco_server.gateway.index.totals import RunTotals
from pyoco_server.model.access import Tenants

EVERY_SEC = 10.0
SAMPLES = 60
_MOST = 500
"""Queues of one sample: those of a tenant and a tag for which most runs wait."""


@dataclass(frozen=True)
class Sample:
    """How many runs waited at a moment (unix seconds), by tenant and tag; queues that are not named were empty."""

    at: float
    waiting: dict[tuple[str, str], int]


class Depths:
    """Remembers samples; it costs the same however many runs wait.

    Args:
        totals: Knows how many wait.
        caught_up: Set while the index knows all that is stored; before that there is nothing to remember.
    """

    def __init__(self, totals: RunTotals, caught_up: asyncio.Event) -> None:
        self._totals = totals
        self._caught_up = caught_up
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)

    async def round(self) -> None:
        """Take a sample, if there is anything to know yet."""
        if self._caught_up.is_set():
            self.look()

    def pause(self) -> float:
        """Return the seconds between two samples."""
        return EVERY_SEC

    def look(self) -> None:
        """Take a sample."""
        self._samples.append(Sample(time.time(), self._totals.depths(_MOST)))

    def of(self, tags: Iterable[str], tenants: Tenants) -> dict[str, list[int]]:
        """Tell how many runs waited for each tag, the oldest sample first.

        Args:
            tags: Which ones.
            tenants: Whose runs, ``None`` among them for those of no tenant; not given: everybody's.
        """
        own = None if tenants is None else {tenant or "" for tenant in tenants}
        found = {tag: [0] * len(self._samples) for tag in tags}
        for at, sample in enumerate(self._samples):
            for (tenant, tag), runs in sample.waiting.items():
                if tag in found and (own is None or tenant in own):
                    found[tag][at] += runs
        return found
