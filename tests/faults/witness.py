"""Sees every change of every run record, over restarts of NATS, from outside the system."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

from anyio.from_thread import start_blocking_portal
from nats.js.errors import NotFoundError

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.run import RunRecord, RunStatus, new_run_id
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import DirectReader
from pyoco_server.store.nats.feed import BucketFeed, Change
from pyoco_server.store.runs import RunStore

from .history import TERMINAL


class Witness:
    """A connection of its own in a thread of its own.

    Args:
        settings: Where NATS is, and the names in it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection = Connection(self._settings, "witness")
        self.sightings: list[tuple[str, int, bytes | None]] = []
        self.statuses: dict[str, list[str]] = {}
        """Each state that a run was seen in, in order."""
        self.ends: dict[str, bytes] = {}
        """The terminal record of each run, as it was first seen."""
        self._ended: set[str] = set()
        self.newest: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator["Witness"]:
        """Watch for as long as the block lasts."""
        with start_blocking_portal("asyncio") as self._portal, self._portal.wrap_async_context_manager(self._follow()):
            yield self

    def records(self) -> dict[str, dict[str, Any]]:
        """Read every run that was ever seen, as it is stored now."""
        return self._portal.call(self._read)

    def stored(self) -> dict[str, bytes]:
        """Read every run that is stored now, also those that were never seen."""
        return self._portal.call(self._read_all)

    def fill(self, runs: int, size: int) -> None:
        """Store runs that ended long ago, with params of so many bytes."""
        self._portal.call(self._fill, runs, size)

    def letters(self) -> list[dict[str, Any]]:
        """Read every dead letter that is stored now."""
        return self._portal.call(self._read_letters)

    def delete_consumer(self, tag: str) -> None:
        """Delete the durable consumer of a tag."""
        name = f"{self._settings.consumer_prefix}_{tag}"
        self._portal.call(self._connection.js.delete_consumer, self._settings.work_stream, name)

    def leader(self, stream: str) -> str | None:
        """Tell which server leads a stream; ``None`` while none does."""
        return self._portal.call(self._leader, stream)

    def in_sync(self, replicas: int) -> bool:
        """Tell whether every stream has so many replicas, all of them there and up to date."""
        return self._portal.call(self._in_sync, replicas)

    @contextlib.asynccontextmanager
    async def _follow(self) -> AsyncIterator[None]:
        await self._connection.start()
        feed = BucketFeed(self._connection, self._settings.runs_kv_bucket, on_changes=self._note, on_reset=lambda: None)
        following = asyncio.create_task(feed.run())
        try:
            yield
        finally:
            feed.stop()
            await following
            await self._connection.close()

    async def _leader(self, stream: str) -> str | None:
        try:
            with self._connection.errors("looking for a leader"):
                cluster = (await self._connection.js.stream_info(stream)).cluster
        except StoreUnavailable:
            return None
        return cluster.leader if cluster else None

    async def _in_sync(self, replicas: int) -> bool:
        try:
            for wanted in topology.definitions(self._settings):
                with self._connection.errors("looking at a stream"):
                    info = await self._connection.js.stream_info(str(wanted.name))
                peers = (info.cluster.replicas or []) if info.cluster else []
                if len(peers) != replicas - 1 or not all(peer.current and not peer.offline for peer in peers):
                    return False
        except StoreUnavailable:
            return False
        return True

    async def _read(self) -> dict[str, dict[str, Any]]:
        runs = RunStore(self._connection)
        found = {run_id: await runs.get_raw(run_id) for run_id in list(self.newest)}
        return {run_id: json.loads(raw[0]) for run_id, raw in found.items() if raw is not None}

    async def _read_all(self) -> dict[str, bytes]:
        reader = DirectReader(self._connection, f"KV_{self._settings.runs_kv_bucket}")
        subject = f"$KV.{self._settings.runs_kv_bucket}."
        found = await reader.read(start=1, subject=f"{subject}>", limit=1_000_000)
        return {one.subject.removeprefix(subject): one.data for one in found if one.data}

    async def _fill(self, runs: int, size: int) -> None:
        store = RunStore(self._connection)
        for _ in range(runs):
            record = RunRecord(
                run_id=new_run_id(), flow_name="old", tag="cpu", tags=["cpu"], status=RunStatus.COMPLETED,
                params={"x": secrets.token_hex(size // 2)}, submitted_at=1.0, updated_at=1.0, end_time=1.0,
            )  # fmt: skip
            await store.create(record)

    async def _read_letters(self) -> list[dict[str, Any]]:
        stream, js = self._settings.dlq_stream, self._connection.js
        state = (await js.stream_info(stream)).state
        found = []
        for seq in range(max(1, state.first_seq), state.last_seq + 1):
            with contextlib.suppress(NotFoundError):  # deleted
                found.append(json.loads((await js.get_msg(stream, seq)).data or b"{}"))
        return found

    def _note(self, changes: list[Change]) -> None:
        for change in changes:
            record = json.loads(change.value) if change.value is not None else None
            if change.key in self._ended or (record is not None and record["status"] in TERMINAL):
                self._ended.add(change.key)
                if change.value is not None:
                    self.ends.setdefault(change.key, change.value)
                self.sightings.append((change.key, change.revision, change.value))
            if record is not None:
                self.newest[change.key] = record
                seen = self.statuses.setdefault(change.key, [])
                if seen[-1:] != [record["status"]]:
                    seen.append(record["status"])
