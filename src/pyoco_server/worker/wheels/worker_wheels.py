"""All wheels of a worker: those that all tenants share, and each tenant's own."""

import asyncio
from collections.abc import Callable
from typing import Any

from pyoco_server.model.wheels.sync import TENANTS
from pyoco_server.model.wheels.wheel import Selection, WheelEntry
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.machine.apart import TOGETHER, Apart
from pyoco_server.worker.wheels.environments import Environment
from pyoco_server.worker.wheels.sync import Registry, WheelSync
from pyoco_server.worker.wheels.tenants import TenantWheels


class _Whole:
    """The registry: gives what all share, and keeps the rest for the tenants' syncs."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._newest = -1
        self.entries: list[WheelEntry] = []
        """All of it, as last read."""
        self.seen = -1
        """Its revision then, or an older one."""

    async def list(self) -> list[WheelEntry]:
        newest = self._newest
        self.entries = await self._registry.list()
        self.seen = newest
        return [entry for entry in self.entries if entry.tenant_id is None]

    async def read_to(self, entry: WheelEntry, file: Any) -> Any:
        return await self._registry.read_to(entry, file)

    async def revision(self) -> int:
        found = await self._registry.revision()
        self._newest = max(self._newest, found)
        return found


class WorkerWheels(WheelSync):
    """A worker's wheels; as a ``WheelSync``, those that all tenants share.

    The runs of a tenant without usable wheels of its own import from what all share, at no further cost.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        worker_id: str,
        tags: list[str],
        report: Callable[[dict[str, Any], bool], None],
        stop: asyncio.Event,
        apart: Apart = TOGETHER,
    ) -> None:
        self._whole = _Whole(registry)
        super().__init__(settings, self._whole, worker_id=worker_id, tags=tags, report=report, stop=stop, apart=apart)
        self._status[TENANTS] = {}
        self._tenants = TenantWheels(
            settings,
            registry,
            worker_id=worker_id,
            tags=tags,
            own=self._own,
            apart=apart,
            switched=self.switched,
            building=self.building,
            status=self._tell_of_tenants,
        )

    async def run(self) -> None:
        """Stay in step until ``stop`` is set."""
        try:
            await super().run()
        finally:
            await self._tenants.close()

    @property
    def has_tenants(self) -> bool:
        """Whether any tenant has wheels of its own, as far as is known."""
        return bool(self._tenants)

    async def ready_for(self, tenant_id: str | None, stop: asyncio.Event) -> None:
        """Wait until what was read of a tenant's own wheels is in use, or cannot be; ``in_step`` comes before."""
        await self._tenants.in_step(tenant_id, stop)

    def environment_of(self, tenant_id: str | None) -> Environment | None:
        """Return what the next run of a tenant imports from; ``None`` for nothing."""
        own = self._tenants.get(tenant_id)
        return own.environment if own is not None else self.environment

    def uses(self, environment: Environment | None) -> bool:
        """Whether runs of anybody import from an environment."""
        return environment == self.environment or environment in self._tenants.environments()

    def refuse_of(self, tenant_id: str | None, environment: Environment | None, reason: str) -> bool:
        """Take an environment in which no child starts out of use for a tenant, or for all where all share it.

        Returns:
            Whether there is another one to try.
        """
        own = self._tenants.get(tenant_id)
        if own is None or environment == self.environment:
            return self.refuse(environment, reason)
        own.refuse(environment, reason)
        return True  # what all share, if nothing else

    def explain_to(self, tenant_id: str | None, error: str) -> str:
        """Return what the wheels explain to a tenant of a module that a run did not find."""
        return self._tenants.explain(tenant_id, error) or self.explain(error)

    def _describe(self, selection: Selection, entries: list[WheelEntry]) -> None:
        super()._describe(selection, entries)
        self._tenants.follow(self._whole.entries, selection.chosen, self._whole.seen)

    def _tell_of_tenants(self, told: dict[str, dict[str, Any]], *, news: bool) -> None:
        self._status = {**self._status, TENANTS: told}
        if news:
            self._tidied = object()  # an environment may not be needed any more
        self._report(self._status, news)
