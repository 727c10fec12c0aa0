"""One piece of work for all who want the same at the same time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from pyoco_server.gateway.submitting.checking.frames import Frame


@dataclass
class _Flight:
    task: "asyncio.Task[Frame]"
    waiting: int = 0


class Flights:
    """What is being done, by a key."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight] = {}

    async def join(self, key: str, begin: Callable[[], Coroutine[Any, Any, Frame]]) -> Frame:
        """Wait for what is done under a key; the work ends when nobody waits for it any more.

        Args:
            key: Names the work.
            begin: Begins it, if it is not being done.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(begin()))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.task.cancel()
