"""Whether there is room for more: looked at every few seconds, and counted in between with everything that is admitted.

A store that is full to the last byte is damaged: nats-server gives up JetStream, and while its own limit is reached not
even what has expired goes. So submissions and uploads are refused before. What is left is for those that are there:
claims, ends, cancels, heartbeats, removals.

Other gateways admit as well. So no more than a part of what is left is given out between two looks; whoever wants more
has the store looked at first.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog

from pyoco_server.errors import StoreFull, StoreUnavailable
from pyoco_server.gateway.monitoring.storage_limits import ACCOUNT, Disk, Monitors, Tank, read_disk
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.status.account import Account, read_account

log = structlog.get_logger(__name__)

_LOOK_SEC = 3.0
_AGAIN_SEC = 0.01
"""Shortest time between two looks that requests cause."""
_REFUSED_AGAIN_SEC = 0.25
_STALE_SEC = 30.0
"""So long what a server's monitoring said counts, if it says nothing more."""
_GIVEN_OUT = 0.25
"""Of what is left, as much as is given out between two looks: four gateways may do so at once."""
_WAITING_BYTES = 4096
"""What a waiting run still needs: its claim, its end and its dead letter beside the record and the job that it has."""
_MOST_SET_ASIDE = 0.5
_MB = 1_000_000

Load = Callable[[], tuple[int, int]]


class StoreRoom:
    """Knows how full NATS is.

    Args:
        settings: From when on submissions are refused, and where NATS's data are if they are here.
        connection: The connection.
        monitors: Where NATS's monitoring answers: it alone tells the limit of a whole server.
        load: Tells how many runs are with workers, and how many wait.
        relieve: Called after each look with the tanks, to make room where hardly any is left.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        monitors: Sequence[str] = (),
        *,
        load: Load = lambda: (0, 0),
        relieve: Callable[[list[Tank]], Awaitable[None]] | None = None,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._monitors = Monitors(tuple(monitors))
        self._load = load
        self._relieve = relieve
        self._account: Account | None = None
        self._servers: dict[str, tuple[float, Tank]] = {}
        self._disk: Disk | None = None
        self._told = ""
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._holding = 0
        self._stored: list[int] = [0]
        """Bytes that were stored since each of the last looks began, the latest one last."""
        self._set_aside = 0

    async def round(self) -> None:
        """Look, make room where hardly any is left, and log what has changed."""
        await self.look()
        await self._make_room()
        self._tell()

    def pause(self) -> float:
        """Return for how many seconds a round may wait."""
        return _LOOK_SEC

    async def close(self) -> None:
        """Let go of the connections to NATS's monitoring."""
        await self._monitors.close()

    async def look(self, *, apart: float = 0.0) -> None:
        """Look now, unless it was done within the last ``apart`` seconds. What does not answer is as it was."""
        async with self._looking:
            if time.monotonic() - self._looked_at < apart:
                return
            self._stored.append(0)
            answered = await self._ask()
            if answered:
                # What was stored before this look began is in its figures; of several servers those of the others
                # come a moment later, so what was stored since the look before is counted on.
                del self._stored[: -1 if self._copies == 1 else -2]
            else:
                self._stored[-2:] = [sum(self._stored[-2:])]
            running, waiting = self._load()
            self._set_aside = running * self._settings.max_run_snapshot_bytes + waiting * _WAITING_BYTES
            self._looked_at = time.monotonic()

    async def _ask(self) -> bool:
        """Read all figures; whether they can be relied on."""
        answered = False
        if self._connection.is_up:
            try:
                self._account = await read_account(self._connection)
                answered = True
            except StoreUnavailable as error:
                log.debug("how full NATS is cannot be read", reason=error.message)
            found, now = await self._monitors.read(), time.monotonic()
            answered = answered and found.keys() >= self._servers.keys()
            self._servers.update({url: (now, tank) for url, tank in found.items()})
            self._servers = {url: known for url, known in self._servers.items() if known[0] > now - _STALE_SEC}
        if self._settings.nats_store_dir is not None:
            try:
                self._disk = await asyncio.to_thread(read_disk, self._settings.nats_store_dir)
            except OSError as error:
                log.warning("the disk with NATS's data cannot be looked at", reason=str(error))
        return answered

    async def _make_room(self) -> None:
        if self._relieve is not None:
            await self._relieve(self._tanks())

    def _tell(self) -> None:
        refusal = self.refusal()
        if refusal != self._told and (not refusal or not self._told):
            log.warning(refusal) if refusal else log.info("there is room again; submissions are taken")
            self._told = refusal

    @contextlib.asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Set room aside for what is stored in the block.

        Args:
            size: How many bytes that takes, with all that NATS and we store beside it.

        Raises:
            StoreFull: there is none, or hardly any.
        """
        await self.check(size)
        self._holding += size
        try:
            yield
        finally:  # also after an error: it may have been stored all the same
            self._holding -= size
            self._stored[-1] += size

    async def check(self, more: int = 0) -> None:
        """Refuse what there is no room for; where much was given out since, the store is looked at first.

        Args:
            more: How many bytes are to be stored.

        Raises:
            StoreFull: there is none, or hardly any.
        """
        if self.refusal(more):
            await self.look(apart=_REFUSED_AGAIN_SEC)
        elif self._given_out + more > _GIVEN_OUT * self._left():
            await self.look(apart=_AGAIN_SEC)
        if refusal := self.refusal(more):
            raise StoreFull(refusal)

    @property
    def _given_out(self) -> int:
        return self._holding + sum(self._stored)

    def _left(self) -> float:
        """Return how many bytes may be given out until all is refused, as the last look saw it."""
        given = self._given_out
        left = [(self._bound(tank) - tank.used) / tank.copies + given for tank in self._tanks()]
        if self._disk is not None and self._settings.disk_free_min_bytes:
            left.append(float(self._disk.free - self._settings.disk_free_min_bytes))
        return min(left, default=float("inf"))

    def _bound(self, tank: Tank) -> float:
        """Return up to where submissions may fill it: the rest is for the runs that are there."""
        bound = tank.limit * self._settings.store_full_share
        return bound - min(self._set_aside * tank.copies, bound * _MOST_SET_ASIDE)

    def refusal(self, more: int = 0) -> str:
        """Say why there is no room; empty if there is.

        Args:
            more: How many bytes are wanted.
        """
        full = self._settings.store_full_share
        wanted = f", and {more // _MB} more are wanted" if more >= _MB else ""
        for tank in self._tanks():
            if tank.used + more * tank.copies >= self._bound(tank):
                aside = int(tank.limit * full - self._bound(tank))
                return (
                    f"{tank.name} is nearly full: {tank.used // _MB} of {tank.limit // _MB} MB are used{wanted}"
                    f"{f', and {aside // _MB} are set aside for the runs that are there' if aside >= _MB else ''}; "
                    f"submissions are refused from {full:.0%} on (PYOCO_STORE_FULL_SHARE)"
                )
        least = self._settings.disk_free_min_bytes
        if self._disk is not None and least and self._disk.free - self._given_out - more < least:
            return (
                f"the disk with NATS's data has {self._disk.free // _MB} MB left"
                f"{f', and {more // _MB} are wanted' if more >= _MB else ''}; "
                f"submissions are refused below {least // _MB} MB (PYOCO_DISK_FREE_MIN_BYTES)"
            )
        return ""

    def figures(self) -> dict[str, Any]:
        """Give what ``/ready`` tells of it."""
        fullest = max(self._tanks(), key=lambda tank: tank.share, default=None)
        account, disk = self._account, self._disk
        return {
            "accepts_submissions": not self.refusal(),
            "used_bytes": fullest.used if fullest else account.used if account else None,
            "reserved_bytes": account.reserved if account else None,
            "set_aside_bytes": int(fullest.limit * self._settings.store_full_share - self._bound(fullest))
            if fullest
            else None,
            "limit_bytes": fullest.limit if fullest else None,
            "limit_of": fullest.name if fullest else None,
            "used_share": round(fullest.share, 4) if fullest else None,
            "full_share": self._settings.store_full_share,
            "disk_free_bytes": disk.free if disk else None,
            "disk_total_bytes": disk.total if disk else None,
            "disk_free_min_bytes": self._settings.disk_free_min_bytes if disk else None,
        }

    @property
    def _copies(self) -> int:
        return max(1, self._settings.nats_replicas)

    def _tanks(self) -> list[Tank]:
        """Return what fills up, with what was given out since the last look."""
        account = self._account
        tanks = []
        if account is not None and account.limit:
            # An account counts every copy, wherever it lies; a server only its own.
            tanks.append(Tank(ACCOUNT, account.used, account.limit, self._copies))
        tanks += [tank for _, tank in self._servers.values()]
        return [replace(tank, used=tank.used + self._given_out * tank.copies) for tank in tanks]
