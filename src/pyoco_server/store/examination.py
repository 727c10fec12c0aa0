"""What is wrong with NATS, and with what we keep there: a few requests, all at once."""

import asyncio
import json
from collections.abc import Iterable
from enum import Enum
from typing import Any

from nats.js import api
from nats.js.errors import NotFoundError
from packaging.version import Version

from pyoco_server.errors import RightMissing, StoreUnavailable
from pyoco_server.model.findings.finding import Finding, FindingCode, error, how_full, warning
from pyoco_server.model.findings.finding import info as noted
from pyoco_server.model.run import RunStatus
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct_flag import why_unreadable
from pyoco_server.store.topology import RESTORING

OLDEST_NATS = "2.12.5"
_DEADLY = ("retention", "subjects")
"""A stream that differs in one of these cannot do its work."""


class Unseen(Enum):
    """Stands for a stream at which our user may not look."""

    UNSEEN = "unseen"


UNSEEN = Unseen.UNSEEN


async def examine(connection: Connection) -> list[Finding]:
    """Look at NATS and at our streams.

    Raises:
        StoreUnavailable: NATS is away, or does not answer.
    """
    findings = nats_version(connection)
    account = await account_of(connection)
    if "error" in account:
        reason = account["error"].get("description") or account["error"]
        return [*findings, error(FindingCode.JETSTREAM_OFF, url=connection.shown_url, reason=reason)]
    streams = topology.definitions(connection.settings)
    found = await asyncio.gather(*(look_at(connection, str(stream.name)) for stream in streams))
    looked_at = list(zip(streams, found, strict=True))
    findings += [*_streams(looked_at), *await _reads(connection, looked_at)]
    findings += expiry(connection.settings, found)
    limit = account.get("limits", {}).get("max_storage", 0)
    return [*findings, *how_full(FindingCode.STORAGE_FULL, account.get("storage", 0), limit)]


async def examine_keys(connection: Connection) -> list[Finding]:
    """Look at the bucket of API keys, where these are kept apart.

    Raises:
        StoreUnavailable: NATS is away, or does not answer.
    """
    wanted = topology.keys_definition(connection.settings)
    found = await look_at(connection, str(wanted.name))
    return [*_streams([(wanted, found)]), *await _reads(connection, [(wanted, found)])]


async def _reads(
    connection: Connection, looked_at: list[tuple[api.StreamConfig, api.StreamInfo | Unseen | None]]
) -> list[Finding]:
    """Look whether streams that take no direct reads can be read at all."""
    slow, bad = [], {}
    for wanted, info in looked_at:
        if isinstance(info, api.StreamInfo) and wanted.allow_direct and not info.config.allow_direct:
            name = str(wanted.name)
            problem = await why_unreadable(connection, name)
            if problem is None:
                slow.append(name)
            else:
                bad[name] = problem
    findings = [error(FindingCode.READS_FAIL, reason=next(iter(bad.values())), streams=list(bad))] if bad else []
    return [*findings, *([warning(FindingCode.READS_SLOW, streams=slow)] if slow else [])]


def nats_version(connection: Connection) -> list[Finding]:
    """Return a finding where NATS is older than it should be."""
    found = connection.server_version
    old = Version(found) < Version(OLDEST_NATS)
    return [warning(FindingCode.NATS_OLD, version=found, wanted=OLDEST_NATS)] if old else []


async def account_of(connection: Connection) -> dict[str, Any]:
    """Ask what our account may use of JetStream, and uses."""
    try:
        answer = await connection.request("$JS.API.INFO", what="asking for JetStream")
    except StoreUnavailable as refused:
        if "responders" not in refused.message:
            raise
        return {"error": {"description": "nobody answers for it"}}
    return dict(json.loads(answer.data))


async def look_at(connection: Connection, name: str) -> api.StreamInfo | Unseen | None:
    """Look at a stream; ``None`` if it is missing.

    Raises:
        StoreUnavailable: NATS is away, or does not answer.
    """
    with connection.errors(f"looking at the stream {name}", missing=True):
        try:
            asking = connection.js.stream_info(name)
            return await connection.if_allowed(f"$JS.API.STREAM.INFO.{name}", asking)
        except NotFoundError:
            return None
        except RightMissing:
            return UNSEEN


def expiry(settings: Settings, found: Iterable[api.StreamInfo | Unseen | None]) -> list[Finding]:
    """Look whether runs expire by NATS's own clock, if they shall expire at all."""
    wanted = any(settings.kept_for(status.value) for status in RunStatus if status.is_terminal)
    name = f"KV_{settings.runs_kv_bucket}"
    runs = next((info for info in found if isinstance(info, api.StreamInfo) and info.config.name == name), None)
    if not wanted or runs is None or runs.config.allow_msg_ttl:
        return []
    return [warning(FindingCode.RUNS_WITHOUT_EXPIRY, stream=name)]


def _streams(looked_at: list[tuple[api.StreamConfig, api.StreamInfo | Unseen | None]]) -> list[Finding]:
    if all(info is None for _, info in looked_at):
        return [warning(FindingCode.STREAMS_NOT_MADE)]
    there = [(wanted, info) for wanted, info in looked_at if isinstance(info, api.StreamInfo)]
    findings = []
    if unseen := [wanted.name for wanted, info in looked_at if isinstance(info, Unseen)]:
        findings.append(noted(FindingCode.STREAM_NOT_SEEN, streams=unseen))
    if missing := [wanted.name for wanted, info in looked_at if info is None]:
        findings.append(error(FindingCode.STREAM_MISSING, streams=missing))
    return findings + differing(there)


def differing(there: list[tuple[api.StreamConfig, api.StreamInfo]]) -> list[Finding]:
    """Return what of streams is not as it should be.

    Args:
        there: Each stream as it is wanted, and as it is.
    """
    findings = []
    if marked := [wanted.name for wanted, info in there if RESTORING in (info.config.metadata or {})]:
        findings.append(error(FindingCode.RESTORE_NOT_ENDED, streams=marked))
    alike: dict[tuple[str, str, str], list[str]] = {}
    for wanted, info in there:
        for field, (have, want) in topology.differences(info.config, wanted).items():
            alike.setdefault((field, str(have), str(want)), []).append(str(wanted.name))
    for (field, have, want), streams in alike.items():
        make = error if field in _DEADLY else warning
        findings.append(make(FindingCode.STREAM_DIFFERS, field=field, have=have, want=want, streams=streams))
    return findings
