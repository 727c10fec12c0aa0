"""How often, where and in what way NATS keeps our streams, as it says itself."""

import asyncio
import json
from dataclasses import dataclass

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.topology import definitions


@dataclass(frozen=True)
class Copies:
    """How a stream is kept.

    Args:
        stream: Its name.
        replicas: How many servers keep it.
        in_memory: It is kept in memory only.
        written_later: It is acknowledged before it is written (``persist_mode: async``).
        servers: The names of those that keep it; none where NATS is no cluster.
    """

    stream: str
    replicas: int
    in_memory: bool
    written_later: bool
    servers: frozenset[str]


async def read_copies(connection: Connection) -> list[Copies]:
    """Ask how each of our streams is kept; one that is missing is left out.

    Raises:
        StoreUnavailable: NATS is away, or does not tell.
    """
    names = [str(wanted.name) for wanted in definitions(connection.settings)]
    found = await asyncio.gather(*(_read(connection, name) for name in names))
    return [copies for copies in found if copies is not None]


async def _read(connection: Connection, stream: str) -> Copies | None:
    what = f"looking at the stream {stream}"
    info = json.loads((await connection.request(f"$JS.API.STREAM.INFO.{stream}", what=what)).data)
    if "error" in info:
        if info["error"].get("code") == 404:
            return None
        raise StoreUnavailable(f"{what}: NATS answered {info['error'].get('description')}")
    config, cluster = info["config"], info.get("cluster") or {}
    peers = [cluster.get("leader"), *(replica.get("name") for replica in cluster.get("replicas") or [])]
    return Copies(
        stream=stream,
        replicas=config.get("num_replicas") or 1,
        in_memory=config.get("storage") == "memory",
        written_later=config.get("persist_mode") == "async",
        servers=frozenset(name for name in peers if name) if cluster.get("name") else frozenset(),
    )
