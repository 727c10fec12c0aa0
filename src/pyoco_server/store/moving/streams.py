"""The streams of a store that another system may have made: which there are, and what a start would change of them."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from nats.js import api

from pyoco_server.errors import RightMissing
from pyoco_server.model.findings.finding import Finding, FindingCode, error, info, warning
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.examination import Unseen, differing, look_at
from pyoco_server.store.nats.connection import Connection

PARTS_LEFT_OUT = ("pyoco_yaml_schedules", "pyoco_workflow_bundles", "pyoco_run_relations")
"""Buckets of the existing system's 0.7 that are of no use here."""
_REFUSED_ANYWAY = b"nothing that could be carried out"


@dataclass(frozen=True)
class Streams:
    """What there is.

    Args:
        wanted: Every stream of ours, as a start would make it.
        there: Those that exist, by name, as they are.
        found: The same, and those of the existing system that a start would neither make nor use.
        unseen: Those at which our user may not look.
        left_out: Buckets of the existing system that are not used here: their name, and how many messages they hold.
    """

    wanted: dict[str, api.StreamConfig]
    there: dict[str, api.StreamInfo]
    found: dict[str, api.StreamInfo]
    unseen: list[str]
    left_out: dict[str, int]

    @property
    def missing(self) -> list[str]:
        """Those that a start would make."""
        return [name for name in self.wanted if name not in self.there and name not in self.unseen]

    @property
    def without_direct_reads(self) -> list[str]:
        """Those that do not take the reads that this system makes."""
        return [
            name
            for name, found in self.there.items()
            if self.wanted[name].allow_direct and not found.config.allow_direct
        ]


async def read_streams(connection: Connection) -> Streams:
    """Look at all streams that this system or the existing one would have here.

    Raises:
        StoreUnavailable: NATS is away, or does not answer.
    """
    settings = connection.settings
    wanted = {str(stream.name): stream for stream in topology.definitions(settings)}
    if not settings.keys_apart:
        keys = topology.keys_definition(settings)
        wanted[str(keys.name)] = keys
    others = [f"KV_{name}" for name in PARTS_LEFT_OUT]
    names = dict.fromkeys([*wanted, *others, f"KV_{settings.auth_kv_bucket}"])
    found = dict(zip(names, await asyncio.gather(*(look_at(connection, name) for name in names)), strict=True))
    there = {name: one for name, one in found.items() if isinstance(one, api.StreamInfo)}
    return Streams(
        wanted=wanted,
        there={name: one for name, one in there.items() if name in wanted},
        found=there,
        unseen=[name for name, one in found.items() if isinstance(one, Unseen) and name in wanted],
        left_out={name.removeprefix("KV_"): one.state.messages for name, one in there.items() if name in others},
    )


def kind_of(streams: Streams, settings: Settings) -> Finding:
    """Say whose store it is."""
    runs, work = f"KV_{settings.runs_kv_bucket}", settings.work_stream
    names = sorted(streams.there)
    if not names:
        return info(FindingCode.STORE_EMPTY)
    if f"KV_{settings.flows_kv_bucket}" in streams.there:
        return info(FindingCode.STORE_OURS)
    core = [name for name in (work, runs) if name in streams.missing]
    if core:
        return warning(FindingCode.STORE_PARTIAL, streams=names, missing=core)
    return info(FindingCode.STORE_EXISTING, streams=names)


def judge_streams(streams: Streams) -> list[Finding]:
    """Return what a start would make and change, and what it would leave as it is although it matters."""
    found: list[Finding] = []
    if streams.unseen:
        found.append(info(FindingCode.STREAM_NOT_SEEN, streams=streams.unseen))
    if streams.there and streams.missing:
        found.append(info(FindingCode.STREAMS_TO_MAKE, streams=streams.missing))
    if off := streams.without_direct_reads:
        found.append(info(FindingCode.DIRECT_READS_OFF, streams=off))
    pairs = [(streams.wanted[name], one) for name, one in streams.there.items()]
    found += differing(pairs)
    left = {name: count for name, count in streams.left_out.items() if count}
    if left:
        found.append(warning(FindingCode.PARTS_LEFT_OUT, buckets=sorted(left), messages=sum(left.values())))
    return found


async def judge_rights(connection: Connection, streams: Streams) -> list[Finding]:
    """Return what our user of NATS may not do that a start would do.

    A right can only be seen by using it. Each request here asks for something that NATS refuses to everybody: its body
    is no request. So nothing is changed, and what is not permitted is told apart from what cannot be carried out.

    Raises:
        StoreUnavailable: NATS is away, or does not answer.
    """
    asked = {f"$JS.API.STREAM.CREATE.{name}": error for name in streams.missing}
    asked |= {f"$JS.API.STREAM.UPDATE.{name}": warning for name in streams.without_direct_reads}
    allowed = await asyncio.gather(*(_may(connection, subject) for subject in asked))
    denied = {subject: make for (subject, make), may in zip(asked.items(), allowed, strict=True) if not may}
    found = []
    for make in (error, warning):
        rights = [subject for subject, how in denied.items() if how is make]
        if rights:
            found.append(make(FindingCode.RIGHT_MISSING, rights=rights, needed="create" if make is error else "update"))
    return found


async def _may(connection: Connection, subject: str) -> bool:
    asking = connection.request(subject, _REFUSED_ANYWAY, what="asking for a right")
    try:
        answer: dict[str, Any] = json.loads((await connection.if_allowed(subject, asking)).data)
    except RightMissing:
        return False
    return "error" in answer  # always: such a request cannot be carried out
