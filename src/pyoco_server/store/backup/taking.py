"""A backup of everything that is kept in NATS, taken while everything goes on.

Each stream is consistent in itself. Between them the order makes what a restored system finds something that it can
go on from: the queue comes first, then the records, then what records refer to.

- A job whose run has ended by the time that the records are read meets a terminal record, and is dropped.
- A run that was submitted in between is there without its job, and the reconciler queues it, as after any crash.
- A letter that is replayed in between is still there, and replaying it again gives the same run.
- A terminal record's log, and the flow of every run, were stored before the record, and are read after it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, BinaryIO

from pyoco_server import __version__
from pyoco_server.errors import CommandFailed
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.backup import stream_snapshots
from pyoco_server.store.backup.archive import ArchiveWriter, Manifest, StoredStream
from pyoco_server.store.backup.snapshot_changes import changes_after
from pyoco_server.store.nats.connection import Connection

_TELL_SEC = 5.0


@dataclass(frozen=True)
class Kept:
    """A stream that belongs into a backup, and the connection to it."""

    name: str
    connection: Connection
    optional: bool = False
    """Whether it is no fault if it is not there."""


def streams_in_order(connection: Connection, keys: Connection | None = None) -> list[Kept]:
    """Give what belongs into a backup, in the order in which it is read; it is restored the other way round.

    Args:
        connection: To everything but API keys.
        keys: To these, where they are kept apart.
    """
    settings = connection.settings
    first = [settings.advisory_stream, settings.work_stream, settings.dlq_stream, runs_stream(settings)]
    names = [str(stream.name) for stream in topology.definitions(settings)]
    kept = [Kept(name, connection) for name in [*first, *(name for name in names if name not in first)]]
    optional = settings.http_auth_mode == "none"
    return [Kept(str(topology.keys_definition(settings).name), keys or connection, optional), *kept]


def runs_stream(settings: Settings) -> str:
    """Name the stream of the records."""
    return f"KV_{settings.runs_kv_bucket}"


async def back_up(streams: list[Kept], out: BinaryIO | IO[bytes], tell: Callable[[str], None]) -> Manifest:
    """Write a backup.

    Args:
        streams: What to keep, in order.
        out: Where to.
        tell: Told how it goes on, a line each.

    Raises:
        CommandFailed: there is nothing, or NATS refuses.
        StoreUnavailable: NATS went away.
    """
    nats = streams[-1].connection.server_version
    manifest = Manifest(pyoco_server=__version__, nats_server=nats, created_at=time.time())
    archive = ArchiveWriter(out)
    for stream in streams:
        stored = await _store(archive, stream, tell)
        if stored is None:
            if not stream.optional:
                manifest.missing.append(stream.name)
            tell(f"{stream.name}: there is no such stream")
            continue
        manifest.streams.append(stored)
        size = sum(content.size for content in stored.contents)
        tell(f"{stored.name}: {stored.state['messages']} messages, {size} bytes")
    if not manifest.streams:
        raise CommandFailed(
            f"there is nothing to back up at {streams[-1].connection.shown_url}",
            hint="Is this the right NATS? Do the settings name the streams as the gateway's do?",
        )
    archive.finish(manifest)
    return manifest


class Progress:
    """Tells every few seconds how much of a stream has passed.

    Args:
        name: The stream.
        tell: Told so.
    """

    def __init__(self, name: str, tell: Callable[[str], None]) -> None:
        self._name = name
        self._tell = tell
        self._size = 0
        self._last = time.monotonic()

    def of(self, chunk: bytes) -> bytes:
        """Count a piece, and pass it on."""
        self._size += len(chunk)
        if time.monotonic() - self._last >= _TELL_SEC:
            self._last = time.monotonic()
            self._tell(f"{self._name}: {self._size // 2**20} MiB so far")
        return chunk


async def _store(archive: ArchiveWriter, stream: Kept, tell: Callable[[str], None]) -> StoredStream | None:
    content = archive.content(f"{stream.name}/snapshot")
    progress = Progress(stream.name, tell)
    taken = await stream_snapshots.take(stream.connection, stream.name, lambda chunk: content.write(progress.of(chunk)))
    if taken is None:
        return None
    if topology.RESTORING in (taken.config.get("metadata") or {}):
        raise CommandFailed(f"a restore of {stream.name} has not ended", hint="Repeat it first.")
    stored = StoredStream(name=stream.name, config=taken.config, state=taken.state, snapshot=content.end())
    if taken.replaces:
        changes = archive.content(f"{stream.name}/changes")
        async for line in changes_after(stream.connection, stream.name, taken.state["last_seq"]):
            changes.write(line)
        stored.changes = changes.end()
    return stored
