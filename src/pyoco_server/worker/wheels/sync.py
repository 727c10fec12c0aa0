"""Keeps a worker's wheel environment in step with the registry.

A round reads the registry, selects, builds what is missing, and switches. It runs at the start, when the registry says
that it changed, and every ``PYOCO_WHEEL_SYNC_INTERVAL_SEC``. Whatever fails, the last good environment stays in use.
"""

import asyncio
import contextlib
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Protocol

import structlog
from packaging.tags import sys_tags

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.wheels.sync import beginning
from pyoco_server.model.wheels.wheel import Selection, WheelEntry, select, set_digest
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.machine.apart import TOGETHER, Apart
from pyoco_server.worker.wheels.downloads import Downloads
from pyoco_server.worker.wheels.environments import Environment, Environments
from pyoco_server.worker.wheels.installer import BuildFailed, shorten
from pyoco_server.worker.wheels.installer import own_packages as packages_here
from pyoco_server.worker.wheels.missing import LeftOut, explain_missing
from pyoco_server.worker.wheels.plugins import PLUGINS, WheelsBroken, check_plugins, start_check
from pyoco_server.worker.wheels.status import SHOWN, LeftOutCode, is_news, of_environment, of_selection, row_of
from pyoco_server.worker.wheels.trees import check_owner, check_room, make_folder
from pyoco_server.worker.wheels.wheel_failures import Troubles

log = structlog.get_logger(__name__)

_FIRST_RETRY = 2.0
_NEVER = object()


class Registry(Protocol):
    """What is needed of the wheel store."""

    async def list(self) -> list[WheelEntry]:
        """Give every stored wheel."""

    async def read_to(self, entry: WheelEntry, file: Any) -> Any:
        """Write a wheel's bytes to a file."""

    async def revision(self) -> int:
        """Give a number that grows with every change."""


class WheelSync:
    """The wheels of one environment: of a worker's, or of one tenant's there.

    Args:
        settings: Directory, interval, deadlines.
        registry: Where the wheels are.
        worker_id: Names the file that remembers the last good environment.
        tags: What the worker serves.
        report: Called with the worker record's ``wheel_sync``, and whether it is news.
        stop: Ends what is under way.
        apart: What keeps code of wheels from other processes.
        own_packages: The packages that the worker itself has; looked up when not given.
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
        own_packages: dict[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._apart = apart
        self._registry = registry
        self._tags = tags
        self._report = report
        self._stop = stop
        directory = settings.wheel_sync_dir.absolute()
        self._directory = directory
        self._memory = directory / "workers" / f"{worker_id}.json"
        self._environments = Environments(
            directory,
            timeout=settings.wheel_install_timeout_sec,
            with_dependencies=settings.wheel_install_deps,
            stop=stop,
            apart=apart,
            max_bytes=settings.wheel_max_bytes,
        )
        self._downloads = Downloads(directory, registry.read_to, stop)
        self._supported = list(sys_tags())
        self._own = packages_here() if own_packages is None else own_packages
        self.environment: Environment | None = None
        """What the next run imports from; ``None`` for nothing."""
        self._before: Environment | None = None
        self.ready = asyncio.Event()
        """Set after the first round, whatever came of it."""
        self.switched: list[Callable[[], None]] = []
        """Called after a change of ``environment``."""
        self.building: list[Callable[[], None]] = []
        """Called when a new environment is about to be built."""
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._rounds = 0
        self._seen = -1
        self._failures = 0
        self._broken = Troubles(_FIRST_RETRY)
        self._refused = Troubles(_FIRST_RETRY)
        self._own_plugins: list[dict[str, Any]] | None = None
        self._tidied: Environment | object | None = _NEVER
        self._other_tags: list[WheelEntry] = []
        self._nuids: dict[str, str] = {}
        self._attempted_at: float | None = None
        self._status = beginning(enabled=True)

    def look(self) -> None:
        """Begin a round now: the registry may have changed."""
        self._wake.set()

    def check_place(self) -> None:
        """Check that the wheels' directory can be written, and changed by nobody else.

        Raises:
            InvalidSetting: it is not so.
        """
        check_owner(self._directory)
        check_room(self._directory)

    async def run(self) -> None:
        """Stay in step until ``stop`` is set."""
        self.environment = self._remembered()
        self._report(self._status, True)  # the first round may take as long as an installation
        while not self._stop.is_set():
            self._wake.clear()
            self._rounds += 1
            wait = await self._round()
            self.ready.set()
            ended, self._ended = self._ended, asyncio.Event()
            ended.set()
            await self._tidy()
            await first_event(wait, self._stop, self._wake)

    async def in_step(self, stop: asyncio.Event) -> None:
        """Before a run is claimed: wait until what was uploaded before now is in use, or cannot be.

        Args:
            stop: Ends the wait.
        """
        try:
            newest = await self._registry.revision()
        except StoreUnavailable as error:
            log.info("a run starts without a look at the registry", reason=error.message)
            return
        began = self._rounds
        deadline = time.monotonic() + self._settings.wheel_install_timeout_sec
        # A round that failed before it could read the registry does not move _seen; one such try is enough.
        while self._seen < newest and self._rounds <= began + 1 and not stop.is_set():
            self.look()
            left = deadline - time.monotonic()
            if left <= 0:
                log.warning(
                    "a run does not wait any longer for new wheels", waited_sec=self._settings.wheel_install_timeout_sec
                )
                return
            await first_event(left, self._ended, stop)

    def refuse(self, environment: Environment | None, reason: str) -> bool:
        """Take an environment in which no child starts out of use.

        Args:
            environment: The one that was tried.
            reason: What happened.

        Returns:
            Whether there is another one to try.
        """
        if environment is not self.environment:
            return True
        if environment is None:
            return False
        log.error("no process for runs starts with the new wheels; the environment before stays in use",
                  environment=environment.digest, reason=reason)  # fmt: skip
        self._refused.note(environment.digest, "environment " + environment.digest[:12], reason)
        before, self._before = self._before, None
        self._use(before)
        self._tell("failed", f"no process for runs starts with the new wheels: {reason}")
        return True

    def explain(self, error: str) -> str:
        """Return what the wheels explain of a module that a run did not find."""
        left_out = [LeftOut(wheel["wheel_name"], wheel["text"]) for wheel in self._status["skipped_incompatible"]]
        served = ", ".join(self._tags)
        for entry in self._other_tags:
            reason = f"it is for workers of the tags {', '.join(entry.tags)}, this one has {served}"
            left_out.append(LeftOut(entry.name, reason, is_meant=False))
        failed = self._status["outcome"] == "failed"
        return explain_missing(error, left_out, self._status["last_error"] if failed else None)

    async def _round(self) -> float:
        """Make one round; the seconds until the next one are the answer."""
        interval = self._settings.wheel_sync_interval_sec
        self._attempted_at = time.time()
        revision = -1
        try:
            revision = await self._registry.revision()
            entries = await self._registry.list()
            selection, environment = await self._follow(entries)
        except (StoreUnavailable, BuildFailed, OSError) as error:
            if self._stop.is_set():
                return 0.0
            reason = getattr(error, "message", None) or str(error)
        except Exception as error:  # whatever somebody uploaded: it must not end the worker
            log.exception("the wheel sync failed unexpectedly")
            reason = f"{type(error).__name__}: {error}"
        else:
            self._failures = 0
            self._switch(environment)
            self._describe(selection, entries)
            self._seen = revision
            return min(interval, self._broken.next_try_in(), self._refused.next_try_in())
        self._failures += 1
        self._seen = max(self._seen, revision)
        wait: float = min(_FIRST_RETRY * 2.0 ** min(self._failures - 1, 16), max(interval, 60.0))
        log.warning("the wheels are not in step; the last good environment stays in use", reason=reason,
                    environment=self.environment.digest if self.environment else None, retry_sec=wait)  # fmt: skip
        self._tell("failed", reason)
        return wait

    async def _follow(self, entries: list[WheelEntry]) -> tuple[Selection, Environment | None]:
        """Give the environment of what is in the registry, without what cannot be used.

        Instead of a version that is broken the next older one is used, if the registry has it.
        """
        self._broken.keep_only(entry.sha256_hex for entry in entries)
        excluded = {entry.sha256_hex for entry in entries if self._broken.waiting(entry.sha256_hex)}
        while True:
            selection = self._select(entries, excluded)
            if not selection.chosen:
                return selection, None
            digest = set_digest(selection.chosen)
            own = self._environments.digest_of(digest)
            if self._refused.waiting(own) or await self._is_in_use(own):
                return selection, self.environment
            found = await asyncio.to_thread(self._environments.find, own)
            try:
                if found is None:
                    for call in self.building:
                        call()
                    self._environments.prepare()
                    files = await self._downloads.fetch_all(
                        selection.chosen, self._settings.wheel_max_bytes, self._registry.revision
                    )
                    found = await self._environments.obtain(digest, files)
            except WheelsBroken as error:
                excluded |= self._note(error, selection)
            else:
                for wheel in selection.chosen:
                    self._broken.forget(wheel.sha256_hex)
                return selection, found

    async def _is_in_use(self, digest: str) -> bool:
        """Whether an environment is in use, and nobody has removed it from the disk or changed it."""
        environment = self.environment
        if environment is None or environment.digest != digest:
            return False
        return await asyncio.to_thread(environment.flaw) is None

    def _select(self, entries: list[WheelEntry], excluded: set[str]) -> Selection:
        """Select among what can be used."""
        usable = [entry for entry in entries if entry.sha256_hex not in excluded and entry.package not in self._own]
        for pinned in entries:
            if pinned.sha256_hex in excluded and pinned.pinned_at is not None:
                # Somebody went back to this version: where it is broken, a newer one is not what was meant.
                usable = [
                    entry for entry in usable if entry.package != pinned.package or entry.modified < pinned.modified
                ]
        return select(usable, self._tags, self._supported, python_version=platform.python_version())

    def _note(self, error: WheelsBroken, selection: Selection) -> set[str]:
        """Remember broken wheels; their digests are the answer."""
        in_use = {wheel["sha256"] for wheel in self.environment.wheels} if self.environment else set()
        if any(entry.name in error.machine and entry.sha256_hex in in_use for entry in selection.chosen):
            raise BuildFailed(str(error))  # what works now is not given up because there is no room for more
        digests = set()
        for entry in selection.chosen:
            if entry.name in error.reasons:
                log.error("a wheel cannot be used and is left out", wheel=entry.name, reason=error.reasons[entry.name])
                self._broken.note(entry.sha256_hex, entry.name, error.reasons[entry.name])
                digests.add(entry.sha256_hex)
        if not digests:
            raise BuildFailed(str(error))
        return digests

    def _switch(self, environment: Environment | None) -> None:
        if environment is not self.environment:
            self._before = self.environment
            if environment is not None:
                self._refused.forget(environment.digest)
            self._use(environment)

    def _use(self, environment: Environment | None) -> None:
        self.environment = environment
        log.info(
            "wheel environment in use",
            environment=environment.digest if environment else None,
            wheels=[wheel["wheel_name"] for wheel in environment.wheels] if environment else [],
        )
        for call in self.switched:
            call()
        try:
            make_folder(self._memory.parent)
            fresh = self._memory.with_suffix(".new")
            fresh.write_text(json.dumps({"environment": environment.digest if environment else None}))
            fresh.replace(self._memory)
        except OSError as error:
            log.warning("the environment in use cannot be remembered for the next start", reason=str(error))

    def _remembered(self) -> Environment | None:
        """Give the environment that the last worker of this name used, if it is still there."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            digest = json.loads(self._memory.read_text())["environment"]
            return self._environments.find(str(digest)) if digest else None
        return None

    def _describe(self, selection: Selection, entries: list[WheelEntry]) -> None:
        """Report a round that went well, but perhaps without some wheels."""
        serves = set(self._tags)
        self._other_tags = [entry for entry in entries if entry.tags and not serves & set(entry.tags)]
        self._nuids = {entry.sha256_hex: entry.nuid for entry in entries}
        own = [
            row_of(entry, LeftOutCode.WORKER_HAS_IT.value,
                   f"the worker itself has {entry.package} {self._own[entry.package]}, which comes first")
            for entry in entries
            if entry.package in self._own and (not entry.tags or serves & set(entry.tags))
        ]  # fmt: skip
        broken = [
            row_of(entry, LeftOutCode.BROKEN.value, trouble.reason)
            for entry in entries
            if (trouble := self._broken.get(entry.sha256_hex)) is not None
        ]
        self._status = self._status | of_selection(selection, [*broken, *own])
        troubles = [*self._broken.all(), *self._refused.all()]
        error = "; ".join(f"{trouble.name}: {trouble.reason}" for trouble in troubles) or None
        self._tell("partial" if error else "ok", error)

    def _tell(self, result: str, error: str | None) -> None:
        environment, before = self.environment, self._status
        self._status = {
            **before,
            **of_environment(before, environment, outcome=result, nuids=self._nuids, attempted_at=self._attempted_at),
            "last_error": error and shorten(error),
            "plugins": (environment.plugins if environment else self._own_plugins or [])[:SHOWN],
        }
        self._report(self._status, is_news(self._status, before))

    async def _tidy(self) -> None:
        """After a switch: look what the worker itself offers, and remove what nobody needs."""
        if self._wake.is_set() or self._tidied is self.environment:
            return
        try:
            if self.environment is None and self._own_plugins is None:
                self._own_plugins = await self._look_at_own_plugins()
                self._tell(str(self._status["outcome"]), self._status["last_error"])
            await self._downloads.sweep(await self._environments.sweep())
        except (OSError, BuildFailed, WheelsBroken) as error:
            log.warning("the wheel directory could not be tidied up", reason=str(error))
        self._tidied = self.environment

    async def _look_at_own_plugins(self) -> list[dict[str, Any]]:
        if not entry_points(group=PLUGINS):
            return []
        if not self._directory.is_dir():
            make_folder(self._directory)
        timeout = self._settings.wheel_install_timeout_sec
        return await check_plugins(
            await start_check(self._directory, self._apart), None, [], timeout=timeout, stop=self._stop
        )
