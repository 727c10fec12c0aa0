"""Whether there is room for more: looked at every few seconds, so that a request need not ask.

A store that is full to the last byte is damaged: nats-server gives up JetStream, and while its own limit is reached not
even what has expired goes. So submissions are refused before, and what runs has room for its end.
"""

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import structlog

from pyoco_server.errors import StoreFull, StoreUnavailable
from pyoco_server.settings import Settings
from pyoco_server.store.account import Account, read_account
from pyoco_server.store.connection import Connection
from pyoco_server.waiting import first_event

log = structlog.get_logger(__name__)

_LOOK_SEC = 3.0
_ASK_SEC = 1.0
_STALE_SEC = 30.0
"""So long what a server's monitoring said counts, if it says nothing more."""
_MB = 1_000_000
SERVER = "NATS's store"
"""What a whole server may keep."""


@dataclass(frozen=True)
class Tank:
    """Something that fills up."""

    name: str
    used: int
    limit: int

    @property
    def share(self) -> float:
        """How full it is: 1 is full."""
        return self.used / self.limit


@dataclass(frozen=True)
class Disk:
    """The disk with NATS's data."""

    free: int
    total: int


class StoreRoom:
    """Knows how full NATS is.

    Args:
        settings: From when on submissions are refused, and where NATS's data are if they are here.
        connection: The connection.
        monitors: Where NATS's monitoring answers: it alone tells the limit of a whole server.
    """

    def __init__(self, settings: Settings, connection: Connection, monitors: Sequence[str] = ()) -> None:
        self._settings = settings
        self._connection = connection
        self._monitors = monitors
        self._http = httpx2.AsyncClient(timeout=_ASK_SEC, trust_env=False) if monitors else None
        self._account: Account | None = None
        self._servers: dict[str, tuple[float, Tank]] = {}
        self._disk: Disk | None = None
        self._told = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Look every few seconds until ``stop``; whatever goes wrong, it looks again."""
        while not stop.is_set():
            try:
                await self.look()
            except Exception:  # a bug: it is logged, and must not leave the figures of today for ever
                log.exception("looking how full the store is failed")
            await first_event(_LOOK_SEC, stop)
        if self._http is not None:
            await self._http.aclose()

    async def look(self) -> None:
        """Look now. What does not answer is as it was."""
        if self._connection.is_up:
            try:
                self._account = await read_account(self._connection)
            except StoreUnavailable as error:
                log.debug("how full NATS is cannot be read", reason=error.message)
            await self._ask_monitors()
        if self._settings.nats_store_dir is not None:
            try:
                self._disk = await asyncio.to_thread(_read_disk, self._settings.nats_store_dir)
            except OSError as error:
                log.warning("the disk with NATS's data cannot be looked at", reason=str(error))
        refusal = self.refusal()
        if refusal != self._told and (not refusal or not self._told):
            log.warning(refusal) if refusal else log.info("there is room again; submissions are taken")
            self._told = refusal

    def check(self, more: int = 0) -> None:
        """Refuse what there is no room for.

        Args:
            more: How many bytes are to be stored, where they are many.

        Raises:
            StoreFull: there is none, or hardly any.
        """
        if refusal := self.refusal(more):
            raise StoreFull(refusal)

    def refusal(self, more: int = 0) -> str:
        """Say why there is no room; empty if there is."""
        full = self._settings.store_full_share
        for tank in self._tanks():
            if (tank.used + more) / tank.limit >= full:
                return (
                    f"{tank.name} is nearly full: {tank.used // _MB} of {tank.limit // _MB} MB are used"
                    f"{f', and {more // _MB} more are wanted' if more else ''}; "
                    f"submissions are refused from {full:.0%} on (PYOCO_STORE_FULL_SHARE)"
                )
        least = self._settings.disk_free_min_bytes
        if self._disk is not None and self._disk.free - more < least:
            return (
                f"the disk with NATS's data has {self._disk.free // _MB} MB left"
                f"{f', and {more // _MB} are wanted' if more else ''}; "
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
            "limit_bytes": fullest.limit if fullest else None,
            "limit_of": fullest.name if fullest else None,
            "used_share": round(fullest.share, 4) if fullest else None,
            "full_share": self._settings.store_full_share,
            "disk_free_bytes": disk.free if disk else None,
            "disk_total_bytes": disk.total if disk else None,
            "disk_free_min_bytes": self._settings.disk_free_min_bytes if disk else None,
        }

    def _tanks(self) -> list[Tank]:
        account, since = self._account, time.monotonic() - _STALE_SEC
        tanks = [Tank("NATS's account", account.used, account.limit)] if account and account.limit else []
        return tanks + [tank for at, tank in self._servers.values() if at > since]

    async def _ask_monitors(self) -> None:
        if self._http is not None:
            tanks = await asyncio.gather(*(_ask_monitor(self._http, url) for url in self._monitors))
            now = time.monotonic()
            self._servers.update({url: (now, tank) for url, tank in zip(self._monitors, tanks, strict=True) if tank})


async def _ask_monitor(http: httpx2.AsyncClient, url: str) -> Tank | None:
    try:
        told = (await asyncio.wait_for(http.get(f"{url}/jsz"), _ASK_SEC)).raise_for_status().json()
        tank = Tank(SERVER, int(told["storage"]), int(told["config"]["max_storage"]))
        return tank if tank.limit > 0 else None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, asyncio.TimeoutError) as error:
        reason = repr(error)
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it answers with something else: {error!r}"
    log.debug("NATS's monitoring does not tell how full it is", url=url, reason=reason)
    return None


def _read_disk(place: Path) -> Disk:
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    usage = shutil.disk_usage(there)
    return Disk(usage.free, usage.total)
