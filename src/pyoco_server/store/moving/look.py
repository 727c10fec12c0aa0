"""What would happen if this system were started on a store: looked at, and nothing changed."""

import platform
import time
from collections import Counter
from dataclasses import dataclass

from nats.js import api
from packaging.tags import sys_tags

from pyoco_server.errors import RightMissing
from pyoco_server.model.findings.finding import Finding, FindingCode, error, how_full, info, warning
from pyoco_server.model.moving.jobs import judge_jobs, judge_tags
from pyoco_server.model.moving.records import count_runs, existing_keys, existing_workers
from pyoco_server.model.moving.wheels import judge_wheels
from pyoco_server.model.text.sentences import Size
from pyoco_server.settings.environment import Settings
from pyoco_server.store.examination import account_of, expiry, nats_version
from pyoco_server.store.moving.sample import MOST_MESSAGES, Sample, read_sample
from pyoco_server.store.moving.streams import Streams, judge_rights, judge_streams, kind_of, read_streams
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.status.stream_state import read_stream
from pyoco_server.store.topology import object_metas, object_stream

_ENVELOPE = 8 * 1024
"""What a message has besides the largest thing that it carries."""
_MOST_JOBS = 5_000
_NAMED = 20


@dataclass(frozen=True)
class Looked:
    """What a look at a store found.

    Args:
        store: ``empty``, ``ours``, ``existing`` or ``partial``; ``None`` where it could not be told.
        findings: What is to be told of it.
    """

    store: str | None
    findings: list[Finding]


async def look_before_moving(connection: Connection, *, deadline: float) -> Looked:
    """Look at a store of the existing system.

    Everything is read by the ordinary requests of JetStream, which leave no trace. What is large is read in part.

    Args:
        connection: To it.
        deadline: Monotonic time at which to stop reading; what was read until then is told.

    Raises:
        StoreUnavailable: NATS is away, or does not answer.
    """
    account = await account_of(connection)
    findings = nats_version(connection)
    if "error" in account:
        reason = account["error"].get("description") or account["error"]
        return Looked(None, [*findings, error(FindingCode.JETSTREAM_OFF, url=connection.shown_url, reason=reason)])
    streams = await read_streams(connection)
    kind = kind_of(streams, connection.settings)
    findings += [kind, *judge_streams(streams), *await judge_rights(connection, streams)]
    findings += expiry(connection.settings, streams.there.values())
    findings += _payload(connection)
    findings += how_full(
        FindingCode.STORAGE_FULL, account.get("storage", 0), account.get("limits", {}).get("max_storage", 0)
    )
    findings += await _Look(connection, streams, deadline).all()
    return Looked(kind.code.value.removeprefix("store_"), findings)


def _payload(connection: Connection) -> list[Finding]:
    """Look whether NATS takes messages as large as our settings let them become."""
    settings = connection.settings
    needed = max(settings.max_run_snapshot_bytes, settings.workflow_yaml_max_bytes) + _ENVELOPE
    if connection.max_payload >= needed:
        return []
    return [warning(FindingCode.PAYLOAD_SMALL, largest=Size(connection.max_payload), needed=Size(needed))]


class _Look:
    """Looks at what the streams hold."""

    def __init__(self, connection: Connection, streams: Streams, deadline: float) -> None:
        self._connection = connection
        self._streams = streams
        self._deadline = deadline
        self._settings: Settings = connection.settings
        self._unreadable: list[str] = []
        self._in_part: list[Finding] = []

    async def all(self) -> list[Finding]:
        """Look at each kind of thing; what is small comes first, should the time be short."""
        small = [*await self._workers(), *await self._keys(), *await self._wheels(), *self._kept()]
        found = [*await self._runs(), *await self._queue(), *small, *self._in_part]
        if self._unreadable:
            found.append(error(FindingCode.RIGHT_MISSING, rights=self._unreadable, needed="read"))
        return found

    async def _sample(self, stream: str, subject: str, *, most: int | None = None) -> Sample | None:
        """Read a stream; ``None`` if it is missing, or not ours to read."""
        if stream not in self._streams.found or (state := await read_stream(self._connection, stream)) is None:
            return None
        try:
            sample = await read_sample(
                self._connection, stream, state, subject, deadline=self._deadline, most=most or MOST_MESSAGES
            )
        except RightMissing:
            self._unreadable.append(f"$JS.API.STREAM.MSG.GET.{stream}")
            return None
        if not sample.whole:
            part = {"looked_at": sample.looked_at, "of": state.messages}
            self._in_part.append(info(FindingCode.LOOKED_AT_IN_PART, stream=stream, **part))
        return sample

    async def _queue(self) -> list[Finding]:
        settings, stream = self._settings, self._settings.work_stream
        if (there := self._streams.there.get(stream)) is None or not there.state.messages:
            return []
        prefix = f"{settings.work_subject_prefix}."
        queued = await self._queued(stream, prefix)
        tags = [f"{tag} {count}" for tag, count in queued.most_common(_NAMED)]
        found = [info(FindingCode.JOBS_QUEUED, jobs=there.state.messages, tags=tags), *judge_tags(queued)]
        sample = await self._sample(stream, f"{prefix}>", most=_MOST_JOBS)
        if sample is not None:
            jobs = judge_jobs((one.data for one in sample.messages), max_bytes=settings.workflow_yaml_max_bytes)
            found += jobs.findings()
        return found

    async def _queued(self, stream: str, prefix: str) -> Counter[str]:
        """Count the jobs by their tag, which the server knows."""
        with self._connection.errors(f"looking at the subjects of {stream}"):
            told: api.StreamInfo = await self._connection.js.stream_info(stream, subjects_filter=f"{prefix}>")
        return Counter({subject.removeprefix(prefix): count for subject, count in (told.state.subjects or {}).items()})

    async def _runs(self) -> list[Finding]:
        bucket = self._settings.runs_kv_bucket
        sample = await self._sample(f"KV_{bucket}", f"$KV.{bucket}.>")
        if sample is None:
            return []
        runs = count_runs(one.data for one in sample.messages)
        of = None if sample.whole else self._streams.there[f"KV_{bucket}"].state.messages
        return runs.findings(None if sample.whole else sample.looked_at, of)

    async def _workers(self) -> list[Finding]:
        bucket, settings = self._settings.workers_kv_bucket, self._settings
        sample = await self._sample(f"KV_{bucket}", f"$KV.{bucket}.>")
        if sample is None:
            return []
        return existing_workers(
            (one.data for one in sample.messages), now=time.time(),
            disconnect_timeout_sec=settings.worker_disconnect_timeout_sec,
        )  # fmt: skip

    async def _keys(self) -> list[Finding]:
        bucket, settings = self._settings.auth_kv_bucket, self._settings
        sample = await self._sample(f"KV_{bucket}", f"$KV.{bucket}.>")
        if sample is None:
            return []
        return existing_keys(
            ((_key(one.subject, bucket), one.data) for one in sample.messages),
            pepper=settings.auth_pepper is not None, asked_for=settings.http_auth_mode == "api_key",
            apart=settings.keys_apart,
        )  # fmt: skip

    async def _wheels(self) -> list[Finding]:
        bucket = self._settings.wheel_object_store_bucket
        stream = object_stream(bucket)
        sample = await self._sample(stream, f"{object_metas(bucket)}.>")
        if sample is None:
            return []
        latest = {one.subject: one for one in sorted(sample.messages, key=lambda one: one.seq)}
        there = self._streams.there[stream]
        return [
            *judge_wheels(
                (one.data for one in latest.values()), supported=list(sys_tags()), python=platform.python_version()
            ),
            *how_full(FindingCode.WHEEL_ROOM, there.state.bytes, there.config.max_bytes or 0),
        ]

    def _kept(self) -> list[Finding]:
        settings, there = self._settings, self._streams.there
        letters = there.get(settings.dlq_stream)
        history = there.get(f"KV_{settings.wheel_history_kv_bucket}")
        counts = {
            "letters": letters.state.messages if letters else 0,
            "events": history.state.messages if history else 0,
        }
        return [info(FindingCode.KEPT_AS_IT_IS, **counts)] if any(counts.values()) else []


def _key(subject: str, bucket: str) -> str:
    return subject.removeprefix(f"$KV.{bucket}.")
