"""The processes of one slot: templates, fresh processes in advance, and with ``shared`` isolation one that is kept."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from pyoco_server.errors import CommandFailed
from pyoco_server.model.run import RunRecord
from pyoco_server.model.worker import TroubleKind
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.child.process import ChildProcess, NotForked, Template, Unusable
from pyoco_server.worker.machine.apart import TOGETHER, Apart
from pyoco_server.worker.machine.directories import Machine, MachineFault, no_process
from pyoco_server.worker.resolvers import Resolver, for_child
from pyoco_server.worker.warm import Warm
from pyoco_server.worker.wheels.environments import Environment

log = structlog.get_logger(__name__)

_START_TRIES = 5
_KILLED_TRIES = 3
_TRY_SEC = 60.0
_ASK_SEC = 5.0
_IDLE_SEC = 30.0
"""After so long without a run a kept process goes: an idle worker keeps nothing of past runs."""
_MOST_WARM, _LEAST_WARM, _WARM_IN_ALL = 8, 2, 16
"""Templates of a slot, where tenants have wheels of their own: those used last, so that tenants may take turns. The
more slots there are, the fewer each keeps: one takes about 11 MB with its process in advance."""
_WARM_SEC = 600.0
"""After so long without a run a template goes, unless it is the one that was used last."""
_MOST_RESOLVED = 64


class Wheels(Protocol):
    """What is needed of the worker's wheels."""

    def environment_of(self, tenant_id: str | None) -> Environment | None:
        """Return what the next run of a tenant imports from."""

    def uses(self, environment: Environment | None) -> bool:
        """Whether runs of anybody import from an environment."""

    def refuse_of(self, tenant_id: str | None, environment: Environment | None, reason: str) -> bool:
        """Take an environment in which the resolver does not load out of use; whether there is another one."""


class NoWheels:
    """Stands for the wheels of a worker that uses none."""

    def environment_of(self, tenant_id: str | None) -> Environment | None:
        """Return nothing."""
        return None

    def uses(self, environment: Environment | None) -> bool:
        """Whether it is no environment."""
        return environment is None

    def refuse_of(self, tenant_id: str | None, environment: Environment | None, reason: str) -> bool:
        """Say that there is no other one."""
        return False


class Kinship(NamedTuple):
    """What runs must have in common to share a process."""

    tenant_id: str | None
    flow_name: str
    flow_sha256: str | None

    @classmethod
    def of(cls, record: RunRecord) -> "Kinship":
        """Return that of a run."""
        return cls(record.tenant_id, record.flow_name, record.workflow_yaml_sha256)


class Children:
    """Has a process ready for each run of a slot.

    Args:
        settings: Isolation, preloaded modules.
        resolver: The flow resolver's spec, or ``None``.
        wheels: Say what the runs of each tenant import from.
        machine: Says whether the start directory is still the one in which a process works.
        max_runs: Runs after which a kept process is replaced.
        apart: What keeps processes from others.
        slots: How many slots the worker has.
    """

    def __init__(
        self,
        settings: Settings,
        resolver: Resolver | None,
        *,
        wheels: Wheels | None,
        machine: Machine,
        max_runs: int,
        apart: Apart = TOGETHER,
        slots: int = 1,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._wheels = wheels or NoWheels()
        self._machine = machine
        self._max_runs = max_runs
        self._apart = apart
        self._most_warm = min(_MOST_WARM, max(_LEAST_WARM, _WARM_IN_ALL // slots))
        self._proven = False
        self._resolves_in: set[str | None] = set()
        self._tenant: str | None = None
        self._directory = str(Path.cwd())
        self._preparing = asyncio.Lock()
        self._warm: OrderedDict[str | None, Warm] = OrderedDict()
        self._launched: Template | None = None
        self._kept: tuple[Kinship, ChildProcess] | None = None
        self._kept_since = 0.0
        self._leaving: asyncio.Task[None] | None = None

    async def prepare(self) -> ChildProcess:
        """Return a fresh process that is there, started anew where needed; ``take`` takes it.

        It is one for the tenant of the last run: of the next one nothing is known yet.

        Raises:
            Unusable: none can be had, because of how the worker was started; only until one has once been had.
            MachineFault: none can be had, several times in a row.
        """
        return (await self._prepare()).first

    async def _prepare(self) -> Warm:
        async with self._preparing:
            try:
                warm = await self._make_spare()
            except OSError as error:
                raise no_process(error) from error
            except Unusable as error:
                if not self._proven:
                    raise
                raise MachineFault(TroubleKind.PROCESS, error.message) from error
            except CommandFailed as error:
                raise MachineFault(TroubleKind.PROCESS, error.message) from error
            self._proven = True
            return warm

    async def _make_spare(self) -> Warm:
        """Return a template that has a spare."""
        tries = _KILLED_TRIES
        while True:
            warm: Warm | None = None
            try:
                warm = await self._fit_template(self._tenant)
                await warm.spare()
            except NotForked:
                tries -= 1
                killed = warm is None or not warm.template.is_alive
                if not tries or not killed:  # a template that was killed meanwhile says nothing of this machine
                    raise
            else:
                return warm

    async def take(self, record: RunRecord) -> ChildProcess:
        """Return the process for a run: one kept from a run of its kind, or else a fresh one.

        Raises:
            MachineFault: none can be had.
        """
        await self._left()
        kept, self._kept = self._kept, None
        if kept is not None:
            kinship, child = kept
            akin = kinship == Kinship.of(record) and self._is_current(child.template, record.tenant_id)
            if akin and await _is_fresh(child):
                return child
            await child.end()
        self._tenant = record.tenant_id
        return (await self._prepare()).take()

    async def give_back(
        self,
        child: ChildProcess,
        record: RunRecord,
        *,
        reusable: bool,
        left: bool,
        buried: Callable[[], Awaitable[None]],
    ) -> None:
        """Take a process back after a run: what can be used again is kept, everything else ends.

        Args:
            child: The process.
            record: The run.
            reusable: Whether it may run another run.
            left: Whether it ends by itself. It does so beside us: only the next run must not begin before.
            buried: Called when no process of the run is left.
        """
        fit = reusable and child.is_alive and child.runs < self._max_runs
        current = child.environment == self._wheels.environment_of(record.tenant_id)
        if fit and self._settings.isolation == "shared" and current:
            self._kept, self._kept_since = (Kinship.of(record), child), time.monotonic()
            await buried()
        else:
            await self._left()
            self._leaving = asyncio.create_task(_bury(child, left, buried), name="leaving")
            if not left:
                await self._left()
        if (warm := self._warm.get(_key(child.environment))) is not None and warm.template is child.template:
            warm.fork_ahead()

    async def rest(self) -> None:
        """Called now and then while there is no run: let go of what nobody has needed for a while."""
        async with self._preparing:
            last = next(reversed(self._warm), None)
            for key, warm in list(self._warm.items()):
                await warm.rest()
                if key != last and (warm.idle_for() > _WARM_SEC or not self._wheels.uses(warm.template.environment)):
                    await self._warm.pop(key).end()
        if self._kept is not None and time.monotonic() - self._kept_since > _IDLE_SEC:
            (_, child), self._kept = self._kept, None
            await child.end()

    async def anticipate(self) -> None:
        """Launch the next template now: it imports what it needs while its environment is being built."""
        async with self._preparing:
            if self._launched is not None and self._launched.is_alive:
                return
            template = self._make_template(None)
            try:
                await template.launch()
            except OSError as error:
                log.warning("no process could be launched in advance", reason=str(error))  # the next run asks again
                await template.end()
                return
            self._launched = template

    async def close(self) -> None:
        """End every process."""
        async with self._preparing:
            await self._left()
            kept, self._kept = self._kept, None
            if kept is not None:
                await kept[1].end()
            while self._warm:
                await self._warm.popitem()[1].end()
            if self._launched is not None:
                await self._launched.end()

    async def _left(self) -> None:
        """Wait until nothing of the run before is left: of two, the guardian could not say whose an orphan is."""
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            await leaving

    def _make_template(self, environment: Environment | None) -> Template:
        template = Template(
            environment, isolation=self._settings.isolation, preload=self._settings.preload, apart=self._apart
        )
        template.moves = self._machine.moves
        return template

    def _is_current(self, template: Template, tenant_id: str | None) -> bool:
        """Whether a template imports from where the next run of a tenant is to import from."""
        environment = self._wheels.environment_of(tenant_id)
        return template.environment == environment and template.moves == self._machine.moves

    async def _make_room(self) -> None:
        """End the templates from which nobody's runs are forked any more, and what is one too many."""
        for key, warm in list(self._warm.items()):
            if not self._wheels.uses(warm.template.environment) or len(self._warm) >= self._most_warm:
                await self._warm.pop(key).end()

    async def _fit_template(self, tenant_id: str | None) -> Warm:
        """Return a template of the environment in use for a tenant, started anew where needed."""
        attempt = 1
        while True:
            environment = self._wheels.environment_of(tenant_id)
            old = self._warm.pop(_key(environment), None)
            if old is not None:
                template = old.template
                if template.is_alive and not template.grown and self._is_current(template, tenant_id):
                    self._warm[_key(environment)] = old
                    return old
                await old.end()
            await self._make_room()
            launched, self._launched = self._launched, None
            fit = launched is not None and launched.is_alive and launched.moves == self._machine.moves
            template = launched if launched is not None and fit else self._make_template(environment)
            template.environment = environment
            try:
                await template.start(self._directory)
                await self._check_resolver(template)
            except (OSError, NotForked):  # whatever it is to import from has nothing to do with it
                await template.end()
                raise
            except CommandFailed as error:
                await template.end()
                if attempt == _START_TRIES or "ended with" not in error.message:
                    if not self._wheels.refuse_of(tenant_id, environment, error.message):
                        raise
                    attempt = 0
                log.warning("a template for runs did not start", attempt=attempt, reason=error.message)
                attempt += 1
            else:
                self._warm[_key(environment)] = Warm(template)

    async def _check_resolver(self, template: Template) -> None:
        """Look whether the resolver loads, unless it did so in the same environment.

        Raises:
            Unusable: it does not, and there is something to be done about it.
        """
        environment = template.environment
        if self._resolver is None or (self._proven and _key(environment) in self._resolves_in):
            return
        try:
            await self._try_resolver(template, self._resolver)
        except Unusable as error:
            if not self._proven or environment is not None:
                raise
            log.error("the flow resolver does not load any more; runs that need it fail", reason=error.message)
        if len(self._resolves_in) >= _MOST_RESOLVED:
            self._resolves_in.clear()
        self._resolves_in.add(_key(environment))

    @staticmethod
    async def _try_resolver(template: Template, resolver: Resolver) -> None:
        """Import the resolver once, in a process of its own: what does not load is told before the first run.

        Raises:
            Unusable: it does not load.
        """
        try:
            packed = for_child(resolver)
        except CommandFailed as error:
            raise Unusable(error.message, hint=error.hint) from None
        child = template.fork()
        await child.born()
        answer = await child.ask({"type": "try", "resolver": packed}, _TRY_SEC)
        end = await child.end()
        if answer is None or answer.get("error"):
            reason = answer["error"] if answer else ("it did not answer in time" if end.killed else f"it {end}")
            trace = answer.get("trace") if answer else ""
            raise Unusable(
                f"the flow resolver does not load: {reason}",
                hint=f"It was raised here:\n{trace}"
                if trace
                else "The resolver's file and what it imports must load in a plain Python process.",
            )


def _key(environment: Environment | None) -> str | None:
    return environment.digest if environment is not None else None


async def _bury(child: ChildProcess, left: bool, buried: Callable[[], Awaitable[None]]) -> None:
    await (child.leave() if left else child.end())
    # Until now its directory was that of its last processes: of a resource tracker, say, that is only starting.
    await buried()


async def _is_fresh(child: ChildProcess) -> bool:
    """Whether the code that a kept process has imported is what lies on the disk."""
    answer = await child.ask({"type": "fresh"}, _ASK_SEC) if child.is_alive else None
    return answer is not None and answer.get("type") == "fresh" and answer.get("changed") is False
