"""A backup back into NATS.

Every stream carries a mark until all are there, so that a restore which died half way is known as such and may simply
be repeated. The queue comes last: nobody can take a job before its record is there.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from nats.js import api
from nats.js.errors import NotFoundError
from packaging.version import Version

from pyoco_server import __version__
from pyoco_server.errors import CommandFailed, StoreUnavailable
from pyoco_server.store import topology
from pyoco_server.store.backup import stream_snapshots
from pyoco_server.store.backup.archive import Archive, Manifest, StoredStream
from pyoco_server.store.backup.presence import who_is_there
from pyoco_server.store.backup.snapshot_changes import replay
from pyoco_server.store.backup.taking import Kept, Progress
from pyoco_server.store.status.consumers import behind, consumers_of
from pyoco_server.store.topology import RESTORED, RESTORING, WORK_QUEUE

_TRIES = 3
_LEADER_SEC, _COUNTED_SEC, _AGAIN_SEC = 60.0, 60.0, 0.25
_Answer = TypeVar("_Answer")


class Restore:
    """Puts a backup into NATS.

    Args:
        archive: It must have been verified.
        streams: What belongs into a backup, in a backup's order.
        replicas: Of the restored streams; ``None`` for as many as they had.
        tell: Told how it goes on, a line each.
    """

    def __init__(
        self, archive: Archive, streams: list[Kept], *, replicas: int | None, tell: Callable[[str], None]
    ) -> None:
        self._archive = archive
        self._streams = streams
        self._replicas = replicas
        self._tell = tell
        self._mark = topology.restore_mark()

    async def check(self, *, replace: bool, while_running: bool) -> None:
        """Look whether it can be done, before anything is changed.

        Args:
            replace: Whether what is there may be removed.
            while_running: Whether gateways and workers may be there.

        Raises:
            CommandFailed: it must not be done; the message says why.
            StoreUnavailable: NATS went away.
        """
        manifest = self._archive.manifest
        self._check_versions(manifest)
        names = [stream.name for stream in self._streams]
        if unknown := [stream.name for stream in manifest.streams if stream.name not in names]:
            raise CommandFailed(
                f"the settings name no stream {unknown[0]}, which is in the backup (they name {', '.join(names)})",
                hint="Restore with the settings, and the version, that made the backup.",
            )
        if not while_running and (found := await who_is_there(self._streams[-1].connection)):
            raise CommandFailed(
                f"{found} is using this NATS",
                hint="Stop gateways and workers. (--while-running goes on all the same; what they write is lost.)",
            )
        if not replace and (full := await self._in_use()):
            raise CommandFailed(
                f"there is something already: {', '.join(full)}",
                hint="--replace removes it, and then restores. A backup of it first may be wise.",
            )
        await self._try_replicas()

    async def run(self) -> list[str]:
        """Remove what is there, and restore; the names of the streams that held something are the answer.

        Raises:
            CommandFailed: NATS refuses. It may be repeated.
            StoreUnavailable: NATS went away. It may be repeated.
        """
        removed = []
        for stream in self._streams:
            messages = await _remove(stream)
            if messages:
                removed.append(stream.name)
                self._tell(f"{stream.name}: removed, with {messages} messages")
        stored = {stream.name: stream for stream in self._archive.manifest.streams}
        back = [stream for stream in reversed(self._streams) if stream.name in stored]
        for stream in back:
            await self._restore(stream, stored[stream.name])
        for stream in reversed(back):  # the queue's mark goes first: as long as there is one, not all is well
            done = _config(stored[stream.name], self._mark, self._replicas, done=True)
            await _patiently(stream_snapshots.configure, stream.connection, done)
        await self._allow_direct_reads()
        return removed

    async def _allow_direct_reads(self) -> None:
        """Turn direct reads on, as a start does: another program may have made what was backed up."""
        settings = self._streams[-1].connection.settings
        wanted = {str(one.name): one for one in (*topology.definitions(settings), topology.keys_definition(settings))}
        for stream in self._streams:
            if stream.name in wanted:
                await _patiently(topology.allow_direct_reads, stream.connection, [wanted[stream.name]])

    def _check_versions(self, manifest: Manifest) -> None:
        nats = self._streams[-1].connection.server_version
        if _release(nats)[:2] < _release(manifest.nats_server)[:2]:
            raise CommandFailed(
                f"the backup was taken from nats-server {manifest.nats_server}, and this one is older: {nats}",
                hint="Snapshots can be read by the same or a newer nats-server.",
            )
        if _release(__version__) < _release(manifest.pyoco_server):
            self._tell(
                f"warning: the backup was written by pyoco-server {manifest.pyoco_server}, and this is the older "
                f"{__version__}: it may not understand all that it finds"
            )

    async def _in_use(self) -> list[str]:
        """Name the streams that hold something, but for what a restore that did not end has left."""
        found = {stream.name: info for stream in self._streams if (info := await _look(stream)) and info.state.messages}
        metadata = {name: info.config.metadata or {} for name, info in found.items()}
        begun = {marks.get(RESTORED) for marks in metadata.values() if RESTORING in marks}
        return [name for name, marks in metadata.items() if marks.get(RESTORED) not in begun]

    async def _try_replicas(self) -> None:
        """Look whether NATS can keep as many replicas as are wanted, before what is there is removed."""
        connection, name = self._streams[-1].connection, f"PYOCO_RESTORE_{uuid.uuid4().hex}"
        for wanted in {self._replicas or stream.config["num_replicas"] for stream in self._archive.manifest.streams}:
            probe = {"name": name, "subjects": [name], "num_replicas": wanted}
            await stream_snapshots.create(connection, probe, what=f"trying to keep {wanted} replicas")
            await _remove(Kept(name, connection))

    async def _restore(self, stream: Kept, stored: StoredStream) -> None:
        config = _config(stored, self._mark, self._replicas)
        for _ in range(_TRIES):
            progress = Progress(stream.name, self._tell)
            chunks = (progress.of(chunk) for chunk in self._archive.read(stored.snapshot))
            if await stream_snapshots.put(stream.connection, config, stored.state, chunks):
                break
            await _remove(stream)  # a gateway that runs makes what is missing
        else:
            raise CommandFailed(f"{stream.name} is made anew again and again", hint="Stop all gateways and workers.")
        if stored.changes is not None:
            for line in self._archive.lines(stored.changes):
                await _patiently(replay, stream.connection, line)
        if config["retention"] == WORK_QUEUE:
            await _deliver_anew(stream)
            await _wait_counted(stream)
        info = await _patiently(_look, stream)
        if info is None or info.state.last_seq < stored.state["last_seq"]:
            raise CommandFailed(f"{stream.name} was not restored as a whole", hint="Repeat the command.")
        self._tell(f"{stream.name}: {info.state.messages} messages restored")


def _release(version: str) -> tuple[int, ...]:
    return Version(version).release


def _config(stored: StoredStream, mark: str, replicas: int | None, *, done: bool = False) -> dict[str, Any]:
    """Give the configuration to restore a stream with. The mark tells it from what it was before.

    NATS, up to 2.14, restores the time of creation too, so that alone would not.
    """
    kept = {key: value for key, value in (stored.config.get("metadata") or {}).items() if not key.startswith("_nats.")}
    metadata = {**kept, RESTORED: mark, **({} if done else {RESTORING: mark})}
    return {**stored.config, "metadata": metadata, **({"num_replicas": replicas} if replicas else {})}


async def _patiently(act: Callable[..., Awaitable[_Answer]], *arguments: Any) -> _Answer:
    """Do what may be repeated, until NATS answers: in a cluster a new stream must first choose its leader.

    Raises:
        StoreUnavailable: it does not.
    """
    deadline = time.monotonic() + _LEADER_SEC
    while True:
        try:
            return await act(*arguments)
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_AGAIN_SEC)


async def _look(stream: Kept) -> api.StreamInfo | None:
    with stream.connection.errors(f"looking at {stream.name}", missing=True):
        try:
            return await stream.connection.js.stream_info(stream.name)
        except NotFoundError:
            return None


async def _remove(stream: Kept) -> int | None:
    """Remove a stream; how many messages it had is the answer, ``None`` if there was none."""
    info = await _look(stream)
    if info is None:
        return None
    with stream.connection.errors(f"removing {stream.name}", missing=True), contextlib.suppress(NotFoundError):
        await stream.connection.js.delete_stream(stream.name)
    return info.state.messages


async def _deliver_anew(stream: Kept) -> None:
    """Let the jobs of a queue be delivered as if for the first time.

    Those that were delivered went to workers that are no more: nobody need wait for their AckWait. And one that was
    delivered as often as NATS allows would never come again.
    """
    for consumer in await _patiently(consumers_of, stream.connection, stream.name):
        if consumer.config.durable_name and consumer.delivered and consumer.delivered.consumer_seq:
            await _patiently(_drop, stream, consumer.name)
            await _patiently(_add, stream, consumer.config)


async def _wait_counted(stream: Kept) -> None:
    """Wait until the jobs are known to whoever hands them out: who is told that all is done may start at once.

    Raises:
        CommandFailed: they do not become known.
        StoreUnavailable: NATS went away.
    """
    deadline = time.monotonic() + _COUNTED_SEC
    while late := await _patiently(behind, stream.connection, stream.name):
        if time.monotonic() > deadline:
            raise CommandFailed(f"{stream.name}: NATS does not count all jobs of {late[0]}", hint="Repeat the command.")
        await asyncio.sleep(_AGAIN_SEC)


async def _drop(stream: Kept, consumer: str) -> None:
    with (
        stream.connection.errors(f"removing the consumer {consumer}", missing=True),
        contextlib.suppress(NotFoundError),
    ):
        await stream.connection.js.delete_consumer(stream.name, consumer)


async def _add(stream: Kept, config: api.ConsumerConfig) -> None:
    with stream.connection.errors(f"restoring the consumer {config.durable_name}"):
        await stream.connection.js.add_consumer(stream.name, config)
