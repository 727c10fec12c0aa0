"""What the routes share: the store, the index, and the tasks that keep them fresh."""

import asyncio
from typing import Annotated, cast

import structlog
from fastapi import Depends, Request

from pyoco_server.errors import PyocoError, StoreUnavailable
from pyoco_server.gateway.index import RunIndex
from pyoco_server.gateway.validation import FlowChecker
from pyoco_server.gateway.worker_index import WorkerIndex
from pyoco_server.settings import Settings
from pyoco_server.store import topology
from pyoco_server.store.connection import Connection
from pyoco_server.store.control import ControlChannel
from pyoco_server.store.feed import BucketFeed
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.queue import JobQueue
from pyoco_server.store.runs import RunStore
from pyoco_server.store.workers import WorkerStore
from pyoco_server.waiting import first_event

log = structlog.get_logger(__name__)

_CATCH_UP_SEC = 5.0
_RETRY_SEC = 0.5
_RESTART_SEC = 2.0


class Gateway:
    """One gateway process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connection = Connection(settings, "pyoco-server:http")
        self.runs = RunStore(self.connection)
        self.flows = FlowStore(self.connection)
        self.workers = WorkerStore(self.connection)
        self.queue = JobQueue(self.connection)
        self.control = ControlChannel(self.connection)
        self.checker = FlowChecker(settings.workflow_yaml_max_bytes)
        self.worker_index = WorkerIndex(settings.worker_disconnect_timeout_sec)
        self.index = RunIndex(settings.state_dir, settings.runs_kv_bucket)
        self.stopping = asyncio.Event()
        """Set when the server stops; open streams end then."""
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.run_feed = BucketFeed(
            self.connection,
            settings.runs_kv_bucket,
            on_changes=self._apply_runs,
            on_reset=self.index.clear,
            start_after=self.index.revision,
            identity=self.index.identity,
        )
        self._worker_feed = BucketFeed(
            self.connection,
            settings.workers_kv_bucket,
            on_changes=self.worker_index.apply,
            on_reset=self.worker_index.clear,
        )

    async def start(self) -> None:
        """Connect in the background; NATS may come later."""
        await self.connection.start()
        self.connection.reconnected.append(self._ensure_again)
        self._tasks = [asyncio.create_task(self._follow(), name="index")]

    async def stop(self) -> None:
        """Let go of everything."""
        self.stopping.set()
        self.run_feed.stop()
        self._worker_feed.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=5)
            for task in late:
                task.cancel()
        await self.connection.close()
        self.index.close()

    async def fresh_index(self) -> RunIndex:
        """Give the index, once it has seen everything that was stored.

        Raises:
            StoreUnavailable: NATS is away, or the index is still being built.
        """
        _ = self.connection.client
        if not self.run_feed.caught_up.is_set():
            await first_event(_CATCH_UP_SEC, self.run_feed.caught_up, self.stopping)
            if not self.run_feed.caught_up.is_set():
                raise StoreUnavailable("the index of runs is still being built", hint="Try again in a few seconds.")
        return self.index

    def _apply_runs(self, changes: list) -> None:  # type: ignore[type-arg]
        self.index.apply(changes, self.run_feed.identity)

    async def _follow(self) -> None:
        """Make what is missing in NATS, then follow both buckets."""
        while not self.stopping.is_set():
            try:
                await topology.ensure(self.connection)
                break
            except StoreUnavailable:
                await first_event(_RETRY_SEC if self.connection.is_up else 0.05, self.stopping)
        await asyncio.gather(self._keep(self.run_feed), self._keep(self._worker_feed))

    async def _keep(self, feed: BucketFeed) -> None:
        """Run a feed, and run it again should it fail for a reason that nobody thought of."""
        while not self.stopping.is_set():
            try:
                await feed.run()
            except Exception as error:
                log.error("the index failed; following the bucket anew", exc_info=error)
                feed.caught_up.clear()  # lists answer 503 meanwhile
                await first_event(_RESTART_SEC, self.stopping)

    async def _ensure_again(self) -> None:
        """NATS may have come back with an empty store."""
        try:
            await topology.ensure(self.connection)
        except PyocoError as error:
            log.warning("the streams could not be checked after NATS's return", reason=error.message)


def _gateway(request: Request) -> Gateway:
    return cast(Gateway, request.app.state.gateway)


Here = Annotated[Gateway, Depends(_gateway)]
"""The gateway, as a parameter of a route."""
