"""How streams stand and what they may take, as the server tells it."""

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import read_time
from pyoco_server.store.nats.messages import STREAM_NOT_FOUND
from pyoco_server.store.topology import RESTORING, definitions


@dataclass(frozen=True)
class StreamState:
    """What the server says of a stream. A limit that is not set is ``None``."""

    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    now: float
    """The server's clock, in unix seconds."""
    replicas: int
    expiry: bool
    """Whether messages may be given a time to live."""
    restoring: bool
    """Whether a restore of it has not ended."""
    direct: bool
    """Whether it takes direct reads."""
    slow: bool = False
    """Whether it takes none, and should."""
    max_bytes: int | None = None
    max_msgs: int | None = None
    max_age_sec: float | None = None


async def read_stream(connection: Connection, stream: str) -> StreamState | None:
    """Read how a stream stands; ``None`` if it is missing.

    Raises:
        StoreUnavailable: NATS is away, or refuses.
    """
    what = f"looking at the stream {stream}"
    info = json.loads((await connection.request(f"$JS.API.STREAM.INFO.{stream}", what=what)).data)
    error, config, state = info.get("error"), info.get("config"), info.get("state")
    if error is not None:
        if error.get("err_code") == STREAM_NOT_FOUND:
            return None
        raise StoreUnavailable(f"{what}: NATS answered {error.get('description') or error}")
    return StreamState(
        messages=state["messages"],
        bytes=state["bytes"],
        first_seq=state["first_seq"],
        last_seq=state["last_seq"],
        now=read_time(info["ts"]).timestamp(),
        replicas=config.get("num_replicas") or 1,
        expiry=bool(config.get("allow_msg_ttl")),
        restoring=RESTORING in (config.get("metadata") or {}),
        direct=bool(config.get("allow_direct")),
        max_bytes=_limit(config.get("max_bytes")),
        max_msgs=_limit(config.get("max_msgs")),
        max_age_sec=_limit(config.get("max_age", 0) / 1e9),
    )


def _limit(value: Any) -> Any:
    return value if value is not None and value > 0 else None


async def read_streams(connection: Connection) -> dict[str, StreamState | None]:
    """Tell the state of every stream that we need; ``None`` for one that is missing.

    Raises:
        StoreUnavailable: NATS is away.
    """
    wanted = definitions(connection.settings)
    found = await asyncio.gather(*(read_stream(connection, str(stream.name)) for stream in wanted))
    return {
        str(stream.name): state and replace(state, slow=bool(stream.allow_direct) and not state.direct)
        for stream, state in zip(wanted, found, strict=True)
    }
