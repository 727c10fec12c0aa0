"""What an acknowledgement means, as NATS's servers say; where they do not say it: how to have them say it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from pyoco_server.errors import StoreUnavailable
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.connection import Connection, ServerName
from pyoco_server.store.status.copies import Copies, read_copies

_ASK_SEC = 1.0
_FRESH_SEC = 30.0
"""How long an answer is used again: how a server writes is decided at its start, and a restart is noticed."""
_NS = 1e9


@dataclass(frozen=True)
class Server:
    """What a server's monitoring says of how it writes."""

    id: str
    name: str
    always: bool
    """Whether it forces what it acknowledges to the disk before it does."""
    interval_sec: float
    """Else: after so many seconds at the latest."""
    read_from: str


PUBLIC = ("sync", "sync_interval_sec", "replicas", "acknowledged_means")
"""What of it names neither addresses nor streams."""


class DurabilityReader:
    """Finds out what an acknowledgement means.

    Args:
        settings: Where NATS's monitoring is, and how many replicas are wanted.
        connection: The gateway's connection.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._monitors = settings.nats_monitors
        self._wanted = settings.nats_replicas
        self._connection = connection
        self._known: dict[str, Any] = {}
        self._known_of: tuple[str, float | None] = ("", None)
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def read(self) -> dict[str, Any]:
        """Give what ``/ready`` tells of it; never longer than a second or two, and never a guess."""
        async with self._reading:
            now_of = (self._connection.server.id, self._connection.up_since)
            if self._known_of != now_of or time.monotonic() - self._read_at > _FRESH_SEC:
                self._known = await self._ask()
                self._known_of, self._read_at = now_of, time.monotonic()
            return self._known

    async def _ask(self) -> dict[str, Any]:
        try:
            streams = await read_copies(self._connection)
        except StoreUnavailable as error:
            return _unknown(error.message)
        if not streams:
            return _unknown("there are no streams yet")
        async with httpx2.AsyncClient(timeout=_ASK_SEC, trust_env=False) as http:
            asked = await asyncio.gather(*(_ask_monitor(http, url) for url in self._monitors))
        servers = [answer for answer in asked if isinstance(answer, Server)]
        troubles = [answer for answer in asked if isinstance(answer, str)]
        return describe(streams, servers, troubles, self._connection.server, wanted=self._wanted)


async def _ask_monitor(http: httpx2.AsyncClient, url: str) -> Server | str:
    """Ask a server's monitoring; what went wrong instead, if it did."""
    page = f"{url}/varz"
    try:
        told = (await asyncio.wait_for(http.get(page), _ASK_SEC)).raise_for_status().json()
        config = told["jetstream"]["config"]
        return Server(
            id=str(told["server_id"]), name=str(told["server_name"]), always=bool(config.get("sync_always")),
            interval_sec=config["sync_interval"] / _NS, read_from=page,
        )  # fmt: skip
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, asyncio.TimeoutError) as error:
        return f"{page} does not answer: {str(error) or type(error).__name__}"
    except (ValueError, KeyError, TypeError):
        return f"{page} does not answer as the monitoring of a nats-server with JetStream does"


def describe(
    streams: Sequence[Copies], servers: Sequence[Server], troubles: Sequence[str], connected: ServerName, *, wanted: int
) -> dict[str, Any]:
    """Say what an acknowledgement means.

    Args:
        streams: How each of our streams is kept.
        servers: What servers say of how they write.
        troubles: Why others say nothing.
        connected: The server that we are connected to.
        wanted: How many replicas there should be.
    """
    told = {server.name: server for server in servers}
    if connected.name in told and told[connected.name].id != connected.id:
        troubles = [*troubles, f"{told.pop(connected.name).read_from} belongs to another NATS"]
    keeping = {name for copies in streams for name in copies.servers} or {connected.name}
    silent = sorted(keeping - told.keys())
    lazy = [told[name].interval_sec for name in keeping & told.keys() if not told[name].always]
    sync = "unknown" if silent else "interval" if lazy else "always"
    interval = max(lazy) if sync == "interval" else None
    replicas = min(copies.replicas for copies in streams)
    weaker = [{"stream": copies.stream, "reason": why} for copies in streams if (why := _weakness(copies, wanted))]
    return {
        "sync": sync,
        "sync_interval_sec": interval,
        "replicas": replicas,
        "acknowledged_means": _meaning(sync, interval, replicas, some_weaker=bool(weaker)),
        "unknown": "; ".join(troubles) or f"how {', '.join(silent)} writes to its disk" if silent else None,
        "hint": _HINT if silent else None,
        "weaker_streams": weaker,
        "servers": [
            {
                "name": name,
                "sync": "always" if server.always else "interval",
                "sync_interval_sec": None if server.always else server.interval_sec,
                "read_from": server.read_from,
            }
            for name, server in sorted(told.items())
        ],
    }


_HINT = (
    "Set PYOCO_NATS_MONITOR_URL to where NATS's monitoring answers, such as http://10.0.0.1:8222; for a cluster, to "
    "where that of each server does, comma separated."
)


def _unknown(why: str) -> dict[str, Any]:
    return {
        "sync": "unknown",
        "sync_interval_sec": None,
        "replicas": None,
        "acknowledged_means": _meaning("unknown", None, 0),
        "unknown": why,
        "hint": "See problems.",
        "weaker_streams": [],
        "servers": [],
    }


def _weakness(copies: Copies, wanted: int) -> str | None:
    """Tell in what a stream is kept less safely than what is said of all."""
    if copies.in_memory:
        return "it is kept in memory only: gone when nats-server ends"
    if copies.written_later:
        return "it is acknowledged before it is written (persist_mode: async)"
    if copies.replicas < wanted:
        return f"{copies.replicas} of {wanted} replicas (PYOCO_NATS_REPLICAS)"
    return None


def _meaning(sync: str, interval: float | None, replicas: int, *, some_weaker: bool = False) -> str:
    where = f"a majority of its {replicas} replicas" if replicas > 1 else "NATS"
    if sync == "always":
        text = f"{where} has forced it to the disk: a power cut takes nothing"
    elif interval is not None:
        cut = "a power cut" if replicas == 1 else "a power cut of a majority at once"
        text = (
            f"{where} has given it to the operating system, and it is on the disk after {interval:g} s at the latest: "
            f"{cut} may take what was acknowledged since; the death of nats-server alone takes nothing"
        )
    else:
        text = "unknown: NATS does not tell a client how it writes to the disk"
    return text + ("; some streams are kept less safely" if some_weaker else "")
