"""The environments of tenants that have wheels of their own: what all share, and theirs before it.

Each is kept in step for itself. So a wheel that is slow to build or broken makes nobody wait but its own tenant's runs.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog

from pyoco_server.model.wheels.wheel import Selection, WheelEntry
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.machine.apart import Apart
from pyoco_server.worker.wheels.environments import Environment, Environments
from pyoco_server.worker.wheels.plugins import WheelFile
from pyoco_server.worker.wheels.sync import Registry, WheelSync

log = structlog.get_logger(__name__)

MOST = 32
"""Tenants whose environments a worker keeps in step; of more, those whose runs came last. Others are built when a run
comes."""
_BUILDING = 4
"""How many of them are built at a time: a tenant's wheel may take as long as an installation may."""
_SHOWN = 20
"""Entries of each list that the worker's record has of one tenant."""
_LAST_SEC = 5.0


class Status(Protocol):
    """Takes what is to be told of tenants' wheels."""

    def __call__(self, told: dict[str, dict[str, Any]], *, news: bool) -> None:
        """Take the worker record's part by tenant, and whether it is worth telling soon."""


class _Part:
    """What a tenant's sync sees of the registry: what was last read of it, without a request."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.shared: Sequence[WheelEntry] = ()
        self.own: Sequence[WheelEntry] = ()
        self.seen = -1

    async def list(self) -> list[WheelEntry]:
        return [*self.shared, *self.own]

    async def read_to(self, entry: WheelEntry, file: Any) -> Any:
        return await self._registry.read_to(entry, file)

    async def revision(self) -> int:
        return self.seen


class _InTurn(Environments):
    """Builds only so many environments at a time; what is there already waits for nothing."""

    def __init__(self, directory: Path, turn: asyncio.Semaphore, **options: Any) -> None:
        super().__init__(directory, **options)
        self._turn = turn

    async def obtain(self, set_digest: str, wheels: Sequence[WheelFile]) -> Environment:
        async with self._turn:
            return await super().obtain(set_digest, wheels)


class TenantSync(WheelSync):
    """One tenant's wheels on a worker.

    Args:
        settings: Directory, interval, deadlines.
        part: What it sees of the registry.
        tenant_id: The tenant.
        worker_id: The worker.
        tags: What the worker serves.
        own: The packages that the worker itself has.
        turn: Held while building.
        apart: What keeps code of wheels from other processes.
        report: Called with what became of a round, and whether it is news.
    """

    def __init__(
        self,
        settings: Settings,
        part: _Part,
        tenant_id: str,
        *,
        worker_id: str,
        tags: list[str],
        own: dict[str, str],
        turn: asyncio.Semaphore,
        apart: Apart,
        report: Callable[[dict[str, Any], bool], None],
    ) -> None:
        self.part = part
        self.ending = asyncio.Event()
        super().__init__(
            settings,
            part,
            worker_id=worker_id,
            tags=tags,
            report=report,
            stop=self.ending,
            apart=apart,
            own_packages=own,
        )
        self._memory = self._directory / "workers" / f"{worker_id}@{tenant_id}.json"
        self._environments = _InTurn(
            self._directory,
            turn,
            timeout=settings.wheel_install_timeout_sec,
            with_dependencies=settings.wheel_install_deps,
            stop=self.ending,
            apart=apart,
            max_bytes=settings.wheel_max_bytes,
        )

    async def in_step(self, stop: asyncio.Event) -> None:
        """Wait until what was read of the registry is in use for this tenant, or cannot be."""
        if self.environment is not None and await asyncio.to_thread(self.environment.flaw) is not None:
            self._seen = -1  # somebody removed or changed it: the next round builds it anew
        await super().in_step(stop)

    def forget(self) -> None:
        """Remember nothing for the next start: the tenant has no wheels any more."""
        with contextlib.suppress(OSError):
            self._memory.unlink(missing_ok=True)

    async def _follow(self, entries: list[WheelEntry]) -> tuple[Selection, Environment | None]:
        selection, environment = await super()._follow(entries)
        if all(entry.tenant_id is None for entry in selection.chosen):
            return selection, None  # nothing of its own can be used here: what all share is enough
        return selection, environment

    async def _tidy(self) -> None:
        """Leave it to the sync of what all share."""


class TenantWheels:
    """Keeps a sync for each tenant that has wheels of its own.

    Args:
        settings: Directory, interval, deadlines.
        registry: Where the wheels are.
        worker_id: The worker.
        tags: What it serves.
        own: The packages that the worker itself has.
        apart: What keeps code of wheels from other processes.
        switched: Called after a change of a tenant's environment.
        building: Called when one is about to be built.
        status: Takes what is to be told of them.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        worker_id: str,
        tags: list[str],
        own: dict[str, str],
        apart: Apart,
        switched: list[Callable[[], None]],
        building: list[Callable[[], None]],
        status: Status,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._worker_id = worker_id
        self._tags = tags
        self._own = own
        self._apart = apart
        self._status = status
        self._turn = asyncio.Semaphore(_BUILDING)
        self._syncs: OrderedDict[str, TenantSync] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: dict[str, dict[str, Any]] = {}
        self._wheels: dict[str, list[WheelEntry]] = {}
        self._shared: Sequence[WheelEntry] = ()
        self._seen = -1
        self._switched = switched
        self._building = building

    def __bool__(self) -> bool:
        """Whether any tenant has wheels of its own."""
        return bool(self._wheels)

    def get(self, tenant_id: str | None) -> TenantSync | None:
        """Return the sync of a tenant, if wheels of its own are in use for it here."""
        sync = self._syncs.get(tenant_id) if tenant_id is not None else None
        return sync if sync is not None and sync.environment is not None else None

    def explain(self, tenant_id: str | None, error: str) -> str:
        """Return what a tenant's own wheels explain of a module that a run did not find."""
        sync = self._syncs.get(tenant_id) if tenant_id is not None else None
        return sync.explain(error) if sync is not None else ""

    def environments(self) -> list[Environment]:
        """Return those in use."""
        return [sync.environment for sync in self._syncs.values() if sync.environment is not None]

    def follow(self, entries: Sequence[WheelEntry], shared: Sequence[WheelEntry], revision: int) -> None:
        """Take in what the registry has.

        Args:
            entries: All of it.
            shared: What of it all tenants use here.
            revision: The registry's.
        """
        self._shared, self._seen = shared, revision
        self._wheels = {}
        for entry in entries:
            if entry.tenant_id is not None:
                self._wheels.setdefault(entry.tenant_id, []).append(entry)
        for tenant_id in [known for known in self._syncs if known not in self._wheels]:
            self._end(tenant_id).forget()
        for tenant_id in self._wheels:
            if tenant_id in self._syncs:
                self._show(self._syncs[tenant_id], tenant_id)
            elif len(self._syncs) < MOST:
                self._start(tenant_id)

    async def in_step(self, tenant_id: str | None, stop: asyncio.Event) -> None:
        """Wait until a tenant's wheels that were read from the registry are in use, or cannot be.

        Args:
            tenant_id: The tenant.
            stop: Ends the wait.
        """
        if tenant_id is None or tenant_id not in self._wheels:
            return
        if tenant_id not in self._syncs:
            while len(self._syncs) >= MOST:
                self._end(next(iter(self._syncs)))
            self._start(tenant_id)
        self._syncs.move_to_end(tenant_id)
        await self._syncs[tenant_id].in_step(stop)

    async def close(self) -> None:
        """End all of them."""
        for tenant_id in list(self._syncs):
            self._end(tenant_id)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_LAST_SEC)
            for task in late:
                log.error("a tenant's wheel sync does not stop", task=task.get_name())
                task.cancel()

    def _start(self, tenant_id: str) -> None:
        sync = TenantSync(
            self._settings,
            _Part(self._registry),
            tenant_id,
            worker_id=self._worker_id,
            tags=self._tags,
            own=self._own,
            turn=self._turn,
            apart=self._apart,
            report=lambda status, news: self._note(tenant_id, status, news=news),
        )
        sync.switched, sync.building = self._switched, self._building
        self._syncs[tenant_id] = sync
        self._show(sync, tenant_id)
        task = asyncio.create_task(self._keep(tenant_id, sync), name=f"wheels-of-{tenant_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, tenant_id: str, sync: TenantSync) -> None:
        structlog.contextvars.bind_contextvars(tenant_id=tenant_id)  # what this task logs is about this tenant's
        try:
            await sync.run()
        except Exception:  # a bug: it is logged, must not end the worker, and the next look starts anew
            log.exception("a tenant's wheel sync failed; starting over at the next look", tenant_id=tenant_id)
            if self._syncs.get(tenant_id) is sync:
                self._end(tenant_id)

    def _show(self, sync: TenantSync, tenant_id: str) -> None:
        part = sync.part
        part.shared, part.own, part.seen = self._shared, self._wheels[tenant_id], self._seen
        sync.look()

    def _end(self, tenant_id: str) -> TenantSync:
        sync = self._syncs.pop(tenant_id)
        sync.ending.set()
        self._told.pop(tenant_id, None)
        self._status(dict(self._told), news=True)
        return sync

    def _note(self, tenant_id: str, status: dict[str, Any], *, news: bool) -> None:
        if tenant_id not in self._syncs:
            return
        self._told[tenant_id] = _of_own(status, self._wheels.get(tenant_id, ()))
        self._status(dict(self._told), news=news)


def _of_own(status: dict[str, Any], wheels: Sequence[WheelEntry]) -> dict[str, Any]:
    """Return what a tenant's sync tells of the tenant's own wheels; the rest is told once for all."""
    names = {wheel.name for wheel in wheels}
    packages = {row["package_name"] for row in status["installed_wheels"] if row["wheel_name"] in names}
    return {
        **{name: status[name] for name in ("last_sync_at", "last_result", "outcome", "last_error", "environment")},
        "selected_wheels": [name for name in status["selected_wheels"] if name in names][:_SHOWN],
        "plugins": [plugin for plugin in status["plugins"] if plugin["package_name"] in packages][:_SHOWN],
        **{
            name: [row for row in status[name] if row["wheel_name"] in names][:_SHOWN]
            for name in ("installed_wheels", "skipped_incompatible")
        },
    }
