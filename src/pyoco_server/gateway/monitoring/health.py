"""What ``/ready`` tells of streams: how full each is, and what an operator should know though everything works."""

import asyncio
from typing import Any

from pyoco_server.model.run import ENDED
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct_flag import why_unreadable
from pyoco_server.store.nats.direct_reads import OFF_HINT
from pyoco_server.store.status.stream_state import StreamState


def of_stream(state: StreamState | None, *, counts: bool) -> dict[str, Any] | None:
    """Return how a stream stands against its limits; ``None`` for one that is missing.

    Args:
        state: What the server tells of it.
        counts: Whether to tell what is in it, which is all tenants' together.
    """
    if state is None:
        return None
    shares = [
        used / limit for used, limit in ((state.bytes, state.max_bytes), (state.messages, state.max_msgs)) if limit
    ]
    return {
        "messages": state.messages if counts else None,
        "bytes": state.bytes if counts else None,
        "max_bytes": state.max_bytes,
        "max_msgs": state.max_msgs,
        "max_age_sec": state.max_age_sec,
        "used_share": round(max(shares), 4) if shares and counts else None,
        "replicas": state.replicas,
        "restoring": state.restoring,
        "direct_reads": state.direct,
    }


def warnings(settings: Settings, streams: dict[str, StreamState | None], *told: str) -> list[str]:
    """Tell what does not keep the gateway from working, but somebody should see to.

    Args:
        settings: What is kept for how long.
        streams: The streams' states.
        told: What others have to say, such as why submissions are refused; empty where there is nothing.
    """
    found = [sentence for sentence in told if sentence]
    runs = f"KV_{settings.runs_kv_bucket}"
    state = streams.get(runs)
    if state is not None and not state.expiry and any(settings.kept_for(status) for status in ENDED):
        found.append(
            f"{runs} was made without expiry (allow_msg_ttl): runs are removed by gateways alone, and each removal "
            "leaves a mark that stays; docs/how-to/retention.md tells how to allow it"
        )
    return found


def slow_reads(streams: dict[str, StreamState | None]) -> list[str]:
    """Return a warning where streams take no direct reads, and are read without.

    Args:
        streams: The streams' states.
    """
    slow = ", ".join(_slow(streams))
    return [f"direct reads are off (allow_direct), so that reading takes longer: {slow}. {OFF_HINT}"] if slow else []


async def unreadable(connection: Connection, streams: dict[str, StreamState | None]) -> str | None:
    """Return what is wrong where streams without direct reads cannot be read at all; ``None`` if all can.

    Args:
        connection: The connection.
        streams: The streams' states.

    Raises:
        StoreUnavailable: NATS is away.
    """
    names = _slow(streams)
    problems = await asyncio.gather(*(why_unreadable(connection, name) for name in names))
    bad = {name: problem for name, problem in zip(names, problems, strict=True) if problem}
    if not bad:
        return None
    why = next(iter(bad.values()))
    return f"{', '.join(bad)} cannot be read: direct reads are off (allow_direct), and {why}. {OFF_HINT}"


def _slow(streams: dict[str, StreamState | None]) -> list[str]:
    return [name for name, state in streams.items() if state is not None and state.slow]
