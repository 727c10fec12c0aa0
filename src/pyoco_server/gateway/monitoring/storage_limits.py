"""What fills up: the account, each server's store, the disk; and how each of them is asked how full it is."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import httpx2
import structlog

log = structlog.get_logger(__name__)

_ASK_SEC = 1.0
SERVER = "NATS's store"
"""What a whole server may keep."""
ACCOUNT = "NATS's account"


@dataclass(frozen=True)
class Tank:
    """Something that fills up, in bytes."""

    name: str
    used: int
    limit: int
    copies: int = 1
    """How often what is stored once counts in it."""

    @property
    def share(self) -> float:
        """How full it is: 1 is full."""
        return self.used / self.limit


@dataclass(frozen=True)
class Disk:
    """The disk with NATS's data, in bytes."""

    free: int
    total: int


def read_disk(place: Path) -> Disk:
    """Read how much is left on the disk of a directory, which need not exist yet.

    Raises:
        OSError: it cannot be told.
    """
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    usage = shutil.disk_usage(there)
    return Disk(usage.free, usage.total)


class Monitors:
    """Asks the monitoring of NATS's servers, which alone tells what a whole server may keep.

    Args:
        urls: Where it answers.
    """

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = urls
        self._http = httpx2.AsyncClient(timeout=_ASK_SEC, trust_env=False) if urls else None

    async def read(self) -> dict[str, Tank]:
        """Return how full each server is that answers and has a limit, by address."""
        if self._http is None:
            return {}
        tanks = await asyncio.gather(*(_ask(self._http, url) for url in self._urls))
        return {url: tank for url, tank in zip(self._urls, tanks, strict=True) if tank}

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()


async def _ask(http: httpx2.AsyncClient, url: str) -> Tank | None:
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
