"""A limit on concurrent work of one kind, with a queue that has a deadline."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import anyio

from pyoco_server.errors import StoreUnavailable


class ConcurrencyLimit:
    """Let a fixed number of callers work concurrently; the others wait, for a bounded time.

    Args:
        count: How many callers may work concurrently.
        wait_sec: Seconds for which the others wait at most.
        what: What the callers do, for the error message.
    """

    def __init__(self, count: int, wait_sec: float, what: str) -> None:
        self._free = asyncio.Semaphore(count)
        self._wait_sec = wait_sec
        self._what = what

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the places.

        Raises:
            StoreUnavailable: no place became free in time.
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
