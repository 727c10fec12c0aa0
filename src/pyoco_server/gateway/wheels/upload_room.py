"""How much of the disk uploads may take together, counted as the bytes come and not as they are announced.

An upload that stands still takes what has come of it and nothing more, so that it keeps nobody out.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import anyio

from pyoco_server.errors import StoreUnavailable
from pyoco_server.process.concurrency import ConcurrencyLimit

_UPLOADS = 4
"""So many wheels, as large as they may be, may lie on the disk before they are stored."""
_FILES = 64
_WAIT_SEC = 60.0
_WHAT = "uploads of wheels"


class Uploads:
    """What bounds the uploads of one gateway.

    Args:
        largest: Of a wheel, in bytes.
    """

    def __init__(self, largest: int) -> None:
        self.room = UploadRoom(_UPLOADS * largest, _FILES, _WAIT_SEC)
        """Taken as a wheel arrives."""
        self.checks = ConcurrencyLimit(_UPLOADS, _WAIT_SEC, _WHAT)
        """Held while a wheel that has arrived is looked at and stored."""


class UploadRoom:
    """Room for a number of bytes in a number of files, and a queue that has a deadline.

    Args:
        most_bytes: How many there may be at a time.
        most_files: In how many files; each takes a descriptor.
        wait_sec: Seconds that an upload waits when there is no room.
    """

    def __init__(self, most_bytes: int, most_files: int, wait_sec: float) -> None:
        self.bytes_left = most_bytes
        self.files_left = most_files
        self._wait_sec = wait_sec
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def share(self) -> AsyncIterator["Share"]:
        """Return what one upload takes; at the end all of it is given back."""
        share = Share(self)
        try:
            yield share
        finally:
            self.bytes_left += share.bytes
            self.files_left += share.files
            with anyio.CancelScope(shield=True):
                async with self._changed:
                    self._changed.notify_all()

    async def wait_for(self, size: int, files: int) -> None:
        """Take room as soon as there is some.

        Raises:
            StoreUnavailable: none became free in time.
        """
        try:
            with anyio.fail_after(self._wait_sec):
                async with self._changed:
                    await self._changed.wait_for(lambda: self.bytes_left >= size and self.files_left >= files)
                    self.bytes_left -= size
                    self.files_left -= files
        except TimeoutError:
            raise StoreUnavailable(f"too many {_WHAT} at a time", hint="Try again in a minute.") from None


class Share:
    """What one upload takes.

    Args:
        room: Of which.
    """

    def __init__(self, room: UploadRoom) -> None:
        self._room = room
        self.bytes = 0
        self.files = 0

    async def take(self, size: int) -> None:
        """Take room for more bytes, and with the first ones for the file.

        Args:
            size: Bytes.

        Raises:
            StoreUnavailable: there is none, and none became free in time.
        """
        files = 1 - self.files
        await self._room.wait_for(size, files)
        self.bytes += size
        self.files += files
