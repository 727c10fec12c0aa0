"""Whether somebody works with this NATS right now."""

import time

from nats.js.errors import NotFoundError
from pydantic import ValidationError

from pyoco_server.model.worker import WorkerRecord
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import DirectReader
from pyoco_server.store.status.consumers import consumers_of
from pyoco_server.store.topology import restored_at
from pyoco_server.store.workers import WorkerStore

_MOST_WORKERS = 1000


async def who_is_there(connection: Connection) -> str | None:
    """Name a gateway or worker that is there; ``None`` if nobody is seen.

    A gateway is seen by its open pulls from the records, a worker by those from the queue, or, when all its slots are
    busy, by its last heartbeat.

    Raises:
        StoreUnavailable: NATS went away.
    """
    settings = connection.settings
    pulled = {f"KV_{settings.runs_kv_bucket}": "a gateway", settings.work_stream: "a worker"}
    for stream, who in pulled.items():
        for consumer in await consumers_of(connection, stream):
            if consumer.num_waiting:
                return f"{who} (it pulls from {consumer.name} of {stream})"
    return await _beating(connection)


async def _beating(connection: Connection) -> str | None:
    bucket = WorkerStore(connection).bucket
    with connection.errors("looking at the workers", missing=True):
        try:
            info = await connection.js.stream_info(bucket.stream)
        except NotFoundError:
            return None
    messages = await DirectReader(connection, bucket.stream).read(
        start=1, subject=bucket.subject(">"), limit=_MOST_WORKERS
    )
    timeout = connection.settings.worker_disconnect_timeout_sec
    for message in messages:
        try:
            record = WorkerRecord.from_json(message.data)
        except ValidationError:  # the mark of a removal, or another program's
            continue
        # Older ones than a restore came out of the backup.
        if record.last_seen_at > restored_at(info) and record.state_at(time.time(), timeout).is_active:
            ago = record.silent_for(time.time())
            return f"the worker {record.worker_id} (its last heartbeat came {ago:.0f} s ago)"
    return None
