"""Bounds how much of one kind of work goes on at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import anyio

from pyoco_server.errors import StoreUnavailable


class Slots:
    """A number of places, and a queue that has a deadline.

    Args:
        count: How many may work at a time.
        wait_sec: Seconds that others wait.
        what: The work, for the message.
    """

    def __init__(self, count: int, wait_sec: float, what: str) -> None:
        self._free = asyncio.Semaphore(count)
        self._wait_sec = wait_sec
        self._what = what

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a place.

        Raises:
            StoreUnavailable: none became free in time.
        """
        try:
            with anyio.fail_after(self._wait_sec):
                await self._free.acquire()
        except TimeoutError:
            raise StoreUnavailable(f"too many {self._what} at a time", hint="Try again in a minute.") from None
        try:
            yield
        finally:
            self._free.release()
