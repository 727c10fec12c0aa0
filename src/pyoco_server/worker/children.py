"""The processes of one slot: a template, a fresh process in advance, and with ``shared`` isolation one that is kept."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from pyoco_server.errors import CommandFailed
from pyoco_server.model.run import RunRecord
from pyoco_server.model.worker import TroubleKind
from pyoco_server.settings import Settings
from pyoco_server.worker.apart import TOGETHER, Apart
from pyoco_server.worker.child.process import ChildProcess, NotForked, Template, Unusable
from pyoco_server.worker.machine import Machine, MachineFault, no_process
from pyoco_server.worker.wheels.environments import Environment

log = structlog.get_logger(__name__)

_START_TRIES = 5
_KILLED_TRIES = 3
_TRY_SEC = 60.0
_ASK_SEC = 5.0
_BUSY_SEC = 0.1
_IDLE_SEC = 30.0
"""After so long without a run a kept process goes: an idle worker keeps nothing of past runs."""


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
        environment: Returns the wheel environment that the next run imports from.
        refuse: Takes an environment in which the resolver does not load out of use; whether there is another one.
        machine: Says whether the start directory is still the one in which a process works.
        max_runs: Runs after which a kept process is replaced.
        apart: What keeps processes from others.
    """

    def __init__(
        self,
        settings: Settings,
        resolver: str | None,
        *,
        environment: Callable[[], Environment | None],
        refuse: Callable[[Environment | None, str], bool],
        machine: Machine,
        max_runs: int,
        apart: Apart = TOGETHER,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._environment = environment
        self._refuse = refuse
        self._machine = machine
        self._max_runs = max_runs
        self._apart = apart
        self._proven = False
        self._resolves_in: Environment | None = None
        self._directory = str(Path.cwd())
        self._preparing = asyncio.Lock()
        self._template: Template | None = None
        self._launched: Template | None = None
        self._spares: deque[ChildProcess] = deque()
        self._kept: tuple[Kinship, ChildProcess] | None = None
        self._kept_since = 0.0
        self._ended_at = 0.0
        self._leaving: asyncio.Task[None] | None = None

    async def prepare(self) -> ChildProcess:
        """Return a fresh process that is there, started anew where needed; ``take`` takes it.

        Raises:
            Unusable: none can be had, because of how the worker was started; only until one has once been had.
            MachineFault: none can be had, several times in a row.
        """
        async with self._preparing:
            try:
                spare = await self._make_spare()
            except OSError as error:
                raise no_process(error) from error
            except Unusable as error:
                if not self._proven:
                    raise
                raise MachineFault(TroubleKind.PROCESS, error.message) from error
            except CommandFailed as error:
                raise MachineFault(TroubleKind.PROCESS, error.message) from error
            self._proven = True
            return spare

    async def _make_spare(self) -> ChildProcess:
        tries = _KILLED_TRIES
        while True:
            try:
                return await self._spare_of(await self._fit_template())
            except NotForked:
                tries -= 1
                killed = self._template is None or not self._template.is_alive
                if not tries or not killed:  # a template that was killed meanwhile says nothing of this machine
                    raise

    async def _spare_of(self, template: Template) -> ChildProcess:
        while self._spares and not (self._spares[0].is_alive and self._spares[0].template is template):
            await self._spares.popleft().end()
        if not self._spares:
            self._spares.append(template.fork())
        spare = self._spares[0]
        try:
            await spare.born()
        except CommandFailed:
            self._spares.popleft()
            raise
        return spare

    async def take(self, record: RunRecord) -> ChildProcess:
        """Return the process for a run: one kept from a run of its kind, or else a fresh one.

        Raises:
            MachineFault: none can be had.
        """
        await self._left()
        kept, self._kept = self._kept, None
        if kept is not None:
            kinship, child = kept
            akin = kinship == Kinship.of(record) and self._is_current(child.template)
            if akin and await _is_fresh(child):
                return child
            await child.end()
        child = await self.prepare()
        self._spares.popleft()
        return child

    def _fork_spares(self) -> None:
        """Fork fresh processes in advance: where runs follow each other two, for one may not be ready yet."""
        now = time.monotonic()
        wanted = 2 if now - self._ended_at < _BUSY_SEC else 1
        self._ended_at = now
        while len(self._spares) < wanted and self._template is not None and self._template.is_alive:
            try:
                self._spares.append(self._template.fork())
            except OSError as error:
                log.warning("no process could be forked in advance", reason=str(error))  # the next run asks again
                return

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
        if fit and self._settings.isolation == "shared" and child.environment == self._environment():
            self._kept, self._kept_since = (Kinship.of(record), child), time.monotonic()
            await buried()
        else:
            await self._left()
            self._leaving = asyncio.create_task(_bury(child, left, buried), name="leaving")
            if not left:
                await self._left()
        self._fork_spares()

    async def rest(self) -> None:
        """Called now and then while there is no run: let go of what nobody has needed for a while."""
        if len(self._spares) > 1 and time.monotonic() - self._ended_at > _IDLE_SEC:
            await self._spares.pop().end()
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
            await self._drop_spares()
            for template in (self._template, self._launched):
                if template is not None:
                    await template.end()

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

    def _is_current(self, template: Template) -> bool:
        """Whether a template imports from where the next run is to import from."""
        return template.environment == self._environment() and template.moves == self._machine.moves

    async def _drop_spares(self) -> None:
        while self._spares:
            await self._spares.popleft().end()

    async def _fit_template(self) -> Template:
        """Return a template of the environment in use, started anew where needed."""
        attempt = 1
        while True:
            old, environment = self._template, self._environment()
            if old is not None and old.is_alive and not old.grown and self._is_current(old):
                return old
            await self._drop_spares()
            self._template = None
            if old is not None:
                await old.end()
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
                    if not self._refuse(environment, error.message):
                        raise
                    attempt = 0
                log.warning("a template for runs did not start", attempt=attempt, reason=error.message)
                attempt += 1
            else:
                self._template = template

    async def _check_resolver(self, template: Template) -> None:
        """Look whether the resolver loads, unless it did so in the same environment.

        Raises:
            Unusable: it does not, and there is something to be done about it.
        """
        environment = template.environment
        if self._resolver is None or (self._proven and environment == self._resolves_in):
            return
        try:
            await self._try_resolver(template, self._resolver)
        except Unusable as error:
            if not self._proven or environment is not None:
                raise
            log.error("the flow resolver does not load any more; runs that need it fail", reason=error.message)
        self._resolves_in = environment

    @staticmethod
    async def _try_resolver(template: Template, resolver: str) -> None:
        """Import the resolver once, in a process of its own: what does not load is told before the first run.

        Raises:
            Unusable: it does not load.
        """
        child = template.fork()
        await child.born()
        answer = await child.ask({"type": "try", "resolver": resolver}, _TRY_SEC)
        end = await child.end()
        if answer is None or answer.get("error"):
            reason = answer["error"] if answer else ("it did not answer in time" if end.killed else f"it {end}")
            raise Unusable(
                f"the flow resolver does not load: {reason}",
                hint="The resolver's file and what it imports must load in a plain Python process.",
            )


async def _bury(child: ChildProcess, left: bool, buried: Callable[[], Awaitable[None]]) -> None:
    await (child.leave() if left else child.end())
    # Until now its directory was that of its last processes: of a resource tracker, say, that is only starting.
    await buried()


async def _is_fresh(child: ChildProcess) -> bool:
    """Whether the code that a kept process has imported is what lies on the disk."""
    answer = await child.ask({"type": "fresh"}, _ASK_SEC) if child.is_alive else None
    return answer is not None and answer.get("type") == "fresh" and answer.get("changed") is False
