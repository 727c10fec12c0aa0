"""What exists in NATS: one table of definitions, and the start-up that creates what is missing."""

import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import structlog
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from pyoco_server.config import NatsBackendConfig, settings_of
from pyoco_server.errors import RightMissing, StoreUnavailable
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.bucket import MARK_SEC
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct_flag import turn_on, turn_on_by

log = structlog.get_logger(__name__)

MAX_DELIVERIES = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"
MSG_TERMINATED = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED"
ADVISORY_SUBJECTS = (MAX_DELIVERIES, MSG_TERMINATED)

DUPLICATE_WINDOW = 300.0
"""Seconds in which a repeated publish of the same job is dropped by the server."""
_LETTER_WINDOW = 3600.0
"""Seconds in which a second letter of the same cause is dropped: a job may be redelivered late."""
_ADVISORY_AGE = 7 * 24 * 3600.0
_ADVISORIES = 100_000
_ADVISORY_BYTES = 64 * 1024 * 1024
_WHEEL_EVENTS = 100_000
_STREAM_NAME_IN_USE = 10058
_TELL_AGAIN_SEC = 3600.0
WORK_QUEUE = api.RetentionPolicy.WORK_QUEUE.value
RESTORED = "pyoco.restored"
"""In a stream's metadata: names the restore that made it."""
RESTORING = "pyoco.restoring"
"""In a stream's metadata while that restore has not ended."""
_NO_ROOM = 10047


def definitions(settings: Settings) -> list[api.StreamConfig]:
    """Give every stream that we need, buckets and object stores included (streams named ``KV_…``, ``OBJ_…``)."""
    work = api.StreamConfig(
        name=settings.work_stream,
        subjects=[f"{settings.work_subject_prefix}.>"],
        retention=api.RetentionPolicy.WORK_QUEUE,
        duplicate_window=DUPLICATE_WINDOW,
        allow_direct=True,
    )
    dead_letters = api.StreamConfig(
        name=settings.dlq_stream,
        subjects=[f"{settings.dlq_subject_prefix}.>"],
        retention=api.RetentionPolicy.LIMITS,
        max_age=settings.dlq_max_age_sec,
        max_msgs=settings.dlq_max_msgs,
        max_bytes=settings.dlq_max_bytes,
        duplicate_window=_window(_LETTER_WINDOW, settings.dlq_max_age_sec),
        allow_direct=True,
    )
    advisories = api.StreamConfig(
        name=settings.advisory_stream,
        subjects=[f"{prefix}.{settings.work_stream}.*" for prefix in ADVISORY_SUBJECTS],
        retention=api.RetentionPolicy.WORK_QUEUE,
        max_age=_ADVISORY_AGE,
        max_msgs=_ADVISORIES,
        max_bytes=_ADVISORY_BYTES,
    )
    logs = api.StreamConfig(
        name=settings.logs_stream,
        subjects=[f"{settings.logs_subject_prefix}.>"],
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        max_age=settings.logs_max_age_sec,
        max_bytes=settings.logs_max_bytes,
        duplicate_window=_window(DUPLICATE_WINDOW, settings.logs_max_age_sec),
        allow_direct=True,
    )
    buckets = (settings.runs_kv_bucket, settings.flows_kv_bucket, settings.workers_kv_bucket)
    history = _bucket(settings.wheel_history_kv_bucket)
    history.max_age = settings.wheel_history_ttl_sec
    history.max_msgs, history.discard = _WHEEL_EVENTS, api.DiscardPolicy.OLD
    history.subject_delete_marker_ttl = None  # nobody follows it: what has expired need not be told
    wheels = _object_store(settings.wheel_object_store_bucket)
    streams = [
        work,
        dead_letters,
        advisories,
        logs,
        audit_definition(settings),
        *(_bucket(name) for name in buckets),
        wheels,
        history,
    ]
    for stream in streams:
        stream.num_replicas = settings.nats_replicas
        stream.storage = api.StorageType.FILE
    return streams


def audit_definition(settings: Settings) -> api.StreamConfig:
    """Give the stream of the audit trail, which the admin command writes to as well."""
    return api.StreamConfig(
        name=settings.audit_stream,
        subjects=[f"{settings.audit_subject_prefix}.>"],
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        max_age=settings.audit_max_age_sec,
        max_msgs=settings.audit_max_msgs,
        max_msgs_per_subject=max(1, settings.audit_max_msgs // 10),
        max_bytes=settings.audit_max_bytes,
        duplicate_window=_window(DUPLICATE_WINDOW, settings.audit_max_age_sec),
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        num_replicas=settings.nats_replicas,
        storage=api.StorageType.FILE,
    )


def keys_definition(settings: Settings) -> api.StreamConfig:
    """Give the bucket of API keys, which is made for itself: workers have no business there."""
    keys = _bucket(settings.auth_kv_bucket)
    keys.num_replicas = settings.nats_replicas
    keys.storage = api.StorageType.FILE
    return keys


def _window(seconds: float, max_age: float) -> float:
    """Give a duplicate window; NATS takes none that is longer than what it keeps (0: for ever)."""
    return min(seconds, max_age or seconds)


def _bucket(name: str) -> api.StreamConfig:
    return api.StreamConfig(
        name=f"KV_{name}",
        subjects=[f"$KV.{name}.>"],
        max_msgs_per_subject=1,
        discard=api.DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_direct=True,
        allow_msg_ttl=True,
        subject_delete_marker_ttl=float(MARK_SEC),
    )


def _object_store(name: str) -> api.StreamConfig:
    """Give the stream of an object store as every NATS client makes it."""
    return api.StreamConfig(
        name=object_stream(name),
        subjects=[f"{object_chunks(name)}.>", f"{object_metas(name)}.>"],
        discard=api.DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        allow_direct=True,
    )


def object_stream(bucket: str) -> str:
    """Give the stream's name of an object store."""
    return f"OBJ_{bucket}"


def object_chunks(bucket: str) -> str:
    """Give the beginning of the subjects that hold the bytes of objects."""
    return f"$O.{bucket}.C"


def object_metas(bucket: str) -> str:
    """Give the beginning of the subjects that hold what is known of objects."""
    return f"$O.{bucket}.M"


def needed_by_workers(settings: Settings) -> set[str]:
    """Name the streams that a worker cannot do without; its credential may have no right to even see the others."""
    buckets = (settings.runs_kv_bucket, settings.flows_kv_bucket, settings.workers_kv_bucket)
    names = {settings.work_stream, settings.dlq_stream, settings.logs_stream, *(f"KV_{name}" for name in buckets)}
    if settings.wheel_sync_enabled:
        names.add(object_stream(settings.wheel_object_store_bucket))
    return names


async def ensure(connection: Connection, names: Collection[str] | None = None) -> None:
    """Create what is missing. Existing streams keep their settings; a difference that matters is logged.

    Only direct reads are turned on where another program made a stream without them, and we may do so.

    Args:
        connection: The connection.
        names: Only these streams; all of them when not given.

    Raises:
        RightMissing: a stream is missing, and our credential may not make it.
        StoreUnavailable: NATS is away, or refuses.
    """
    for wanted in definitions(connection.settings):
        if names is None or wanted.name in names:
            await ensure_one(connection, wanted)


async def ensure_one(connection: Connection, wanted: api.StreamConfig) -> None:
    """Create one stream if it is missing.

    Raises:
        RightMissing: it is missing, and our credential may not make it.
        StoreUnavailable: NATS is away, or refuses.
    """
    with connection.errors(f"creating the stream {wanted.name}"):
        try:
            connection.cluster.copies[str(wanted.name)] = await _ensure_stream(connection.js, wanted, connection)
        except APIError as error:
            if error.err_code != _NO_ROOM:
                raise
            raise StoreUnavailable(
                f"creating the stream {wanted.name}: NATS has no room left to set {wanted.max_bytes} bytes aside",
                hint="Give its disk more room, or lower PYOCO_LOGS_MAX_BYTES, PYOCO_DLQ_MAX_BYTES or another one.",
            ) from None


async def allow_direct_reads(connection: Connection, wanted: Collection[api.StreamConfig]) -> list[str]:
    """Turn direct reads on where they should be and are not, of streams that exist; a log line tells of each.

    Returns:
        The streams for which they were turned on.

    Raises:
        StoreUnavailable: NATS is away.
    """
    mended = []
    for stream in wanted:
        name = str(stream.name)
        with connection.errors(f"looking at the stream {name}", missing=True):
            try:
                found = (await connection.js.stream_info(name)).config
            except NotFoundError:
                continue
        if stream.allow_direct and not found.allow_direct and await turn_on(connection, name):
            mended.append(name)
    return mended


async def ensure_resources(js: JetStreamContext, config: Settings | NatsBackendConfig) -> None:
    """Create what is missing, for programs that hold a JetStream context of their own."""
    for wanted in definitions(settings_of(config)):
        await _ensure_stream(js, wanted)


async def _ensure_stream(js: JetStreamContext, wanted: api.StreamConfig, connection: Connection | None = None) -> int:
    """Make a stream if it is missing; how many replicas it has is the answer."""
    try:
        found = (await js.stream_info(str(wanted.name))).config
    except NotFoundError:
        try:
            found = (await _add_stream(js, wanted, connection)).config
        except APIError as error:
            # Another process that starts at the same moment was first, perhaps with other limits.
            if error.err_code != _STREAM_NAME_IN_USE:
                raise
            found = (await js.stream_info(str(wanted.name))).config
    if different := differences(found, wanted):
        shown = {field: f"is {have}, expected {want}" for field, (have, want) in different.items()}
        line = "an existing stream differs from what is expected; it is left as it is"
        if connection is None:
            log.warning(line, stream=wanted.name, **shown)
        else:
            connection.tell(log.warning, line, every_sec=_TELL_AGAIN_SEC, stream=wanted.name, **shown)
    if connection is not None and found.allow_direct:
        connection.direct_reads.note_on(str(wanted.name))
    if wanted.allow_direct and not found.allow_direct:
        await (turn_on_by(js, str(wanted.name)) if connection is None else turn_on(connection, str(wanted.name)))
    return found.num_replicas or 1


def differences(found: api.StreamConfig, wanted: api.StreamConfig) -> dict[str, tuple[Any, Any]]:
    """Tell what of an existing stream differs in a way that matters: for each field what it is, and what is wanted."""
    return {
        field: (_value(getattr(found, field)), _value(getattr(wanted, field)))
        for field in ("retention", "subjects", "num_replicas", "max_msgs_per_subject")
        if _value(getattr(wanted, field)) not in (None, _value(getattr(found, field)))
    }


async def _add_stream(js: JetStreamContext, wanted: api.StreamConfig, connection: Connection | None) -> api.StreamInfo:
    if connection is None:
        return await js.add_stream(wanted)
    try:
        return await connection.if_allowed(f"$JS.API.STREAM.CREATE.{wanted.name}", js.add_stream(wanted))
    except RightMissing as error:
        raise RightMissing(
            f"the stream {wanted.name} is missing, and our user may not make it ({error.message})",
            hint="A gateway makes it: start one.",
        ) from None


def _value(setting: Any) -> Any:
    return getattr(setting, "value", setting)


def identity(info: api.StreamInfo) -> str:
    """Tell a stream from every other one that had or will have its name."""
    restored = (info.config.metadata or {}).get(RESTORED)
    return f"{info.created} {restored}" if restored else str(info.created)


def restore_mark() -> str:
    """Make the name of a restore that begins now."""
    return f"{time.time():.3f}-{uuid.uuid4().hex}"


def restored_at(info: api.StreamInfo) -> float:
    """Tell when a stream's restore began (unix seconds); 0 if it was not restored."""
    return float((info.config.metadata or {}).get(RESTORED, "0").partition("-")[0])


@dataclass(frozen=True)
class StreamFigures:
    """What the server says of a stream."""

    messages: int
    last_seq: int


async def figures(connection: Connection, stream: str) -> StreamFigures | None:
    """Read how a stream stands; ``None`` if it is missing.

    Raises:
        StoreUnavailable: NATS is away.
    """
    with connection.errors(f"looking at the stream {stream}", missing=True):
        try:
            state = (await connection.js.stream_info(stream)).state
        except NotFoundError:
            return None
    return StreamFigures(state.messages, state.last_seq)
