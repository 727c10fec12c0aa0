"""What ``pyoco-server up`` runs: the gateway, and beside it whatever was asked for, watched and stopped in order."""

import asyncio
import contextlib
import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from pyoco_server.embedded.access_point import AccessPoint
from pyoco_server.embedded.keeper import Keeper, end
from pyoco_server.embedded.keyring import Keyring
from pyoco_server.embedded.listener import Listener, bind, check_exposure, check_nats_exposure
from pyoco_server.embedded.nats_server import LINUX, NatsServer
from pyoco_server.embedded.orphans import die_with_parent
from pyoco_server.errors import CommandFailed
from pyoco_server.model.parts import Parts
from pyoco_server.process.memory import settle_memory
from pyoco_server.settings.environment import Settings, without_secrets
from pyoco_server.store.mending import mend_direct_reads

log = structlog.get_logger(__name__)

_WORKER_STOP_SEC = 45.0
"""A worker drains for 30 s at most, then hands its runs back."""
_START_SEC = 30.0
_LOOK_SEC = 0.1


class System:
    """The parts of a running system.

    Args:
        settings: The settings; ``nats_url`` is replaced by the embedded server's.
        host: Address of the gateway.
        port: Its port; 0 for a free one.
        insecure: Whether other machines may be served without keys, and may reach an embedded NATS.
        nats_store: Data directory of an embedded NATS; ``None`` to use the one of the settings.
        nats_listen: Its host, client port and monitoring port (-1 for free ones).
        workers: Arguments of each worker to start.
        worker_log: Where the workers' output goes; ``None`` for our own.
        worker_environment: Variables for the workers, over our own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        host: str,
        port: int,
        insecure: bool = False,
        nats_store: Path | None,
        nats_listen: tuple[str, int, int] = ("127.0.0.1", 4222, 8222),
        workers: list[list[str]] | None = None,
        worker_log: Path | None = None,
        worker_environment: dict[str, str] | None = None,
    ) -> None:
        self._settings = settings.model_copy(update={"nats_store_dir": nats_store}) if nats_store else settings
        self._address = (host, port)
        self._insecure = insecure
        self._nats_store = nats_store
        self._nats_listen = nats_listen
        self._nats: NatsServer | None = None
        self._access: AccessPoint | None = None
        self._worker_arguments = workers or []
        self._worker_log = worker_log
        self._worker_environment = worker_environment or {}
        self._parts = Parts()
        self._workers: list[Keeper] = []
        self._keeping: dict[Keeper, asyncio.Task[None]] = {}
        self._listener: Listener | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        return self._listener.url if self._listener else ""

    async def start(self) -> None:
        """Start everything, in order.

        Raises:
            CommandFailed: one part does not start; the others are stopped again.
        """
        sock = bind(*self._address)
        try:
            check_exposure(sock, self._settings, insecure=self._insecure)
            if self._nats_store is not None:
                await self._start_nats(self._nats_store)
            self._listener = Listener(self._settings, sock)
            self._serving = asyncio.create_task(self._listener.serve(), name="gateway")
            if not await self._listener.wait_ready(_START_SEC, store=self._nats is not None):
                raise CommandFailed("the gateway did not start; its log says why")
            self._listener.tell_of(self._parts)
            for arguments in self._worker_arguments:
                part = self._parts.add(_worker_name(arguments))
                start = functools.partial(self._start_worker, arguments)
                self._workers.append(await self._keep(Keeper(part, start, may_end=True, may_refuse=True)))
        except BaseException:
            await self.stop()
            sock.close()
            raise
        log.info("pyoco-server is up", url=self.url, nats_url=self._nats.url if self._nats else None)

    async def serve(self) -> None:
        """Start, run until Ctrl-C or SIGTERM, stop.

        Raises:
            CommandFailed: the gateway died meanwhile, or a worker refuses to run.
        """
        stop = asyncio.Event()
        with _signals(stop.set):
            await self.start()
            settle_memory()
            try:
                await self.watch(stop)
            finally:
                log.info("stopping")
                await self.stop()

    async def watch(self, stop: asyncio.Event) -> None:
        """Wait for ``stop``. Meanwhile what dies is started again, and told of; nothing is in silence.

        Raises:
            CommandFailed: the gateway has ended before, or a worker refuses to run. A worker that stopped in order,
                because it was asked to drain, takes nothing with it.
        """
        stopped = asyncio.create_task(stop.wait())
        watched: set[asyncio.Future[Any]] = {stopped, *self._keeping.values()}
        if self._serving is not None:
            watched.add(self._serving)
        lost = asyncio.create_task(self._listener.lost()) if self._listener is not None else None
        if lost is not None:
            watched.add(lost)
        try:
            while not stop.is_set():
                done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                if self._serving in done and not stop.is_set():
                    raise CommandFailed(
                        "the gateway has ended by itself; everything is stopped", hint="Its log says why."
                    )
                if lost is not None and lost in done:
                    raise CommandFailed(f"the gateway cannot go on: {lost.result()}", hint="Its log has the error.")
                for task in done - {stopped}:
                    task.result()
        finally:
            stopped.cancel()
            if lost is not None:
                lost.cancel()

    async def stop(self) -> None:
        """Stop in order: workers first, so that they can still write; then the gateway; NATS last."""
        await asyncio.gather(*(self._end_worker(keeper) for keeper in self._workers))
        if self._listener is not None and self._serving is not None:
            self._listener.stop()
            await asyncio.wait({self._serving}, timeout=15)
        if self._nats is not None:
            for keeper, task in self._keeping.items():
                if keeper not in self._workers:
                    task.cancel()
                    await asyncio.wait({task})
            await self._nats.stop()
        if self._access is not None:
            await self._access.close()

    async def _start_nats(self, store: Path) -> None:
        host, port, monitor = self._nats_listen
        here_alone = check_nats_exposure(host, insecure=self._insecure)
        keyring = None
        if self._settings.http_auth_mode == "api_key" and here_alone and LINUX:
            keyring = Keyring()
            self._access = AccessPoint(keyring)
            if port > 0:  # before NATS asks anybody for a credential
                self._access.open(port)
        nats = NatsServer(store, host, port, monitor, self._settings.nats_sync, keyring=keyring, names=self._settings)
        self._nats = nats

        async def start() -> NatsServer:
            await (nats.restart() if nats.url else nats.start())
            return nats

        await self._keep(Keeper(self._parts.add("nats-server"), start))
        if self._access is not None and port <= 0:
            self._access.open(int(urlsplit(nats.url).port or 0))
        self._settings = self._settings.at(nats.url, nats.monitor_url, keyring)
        if keyring is not None:  # the gateway's own user may not change streams
            await mend_direct_reads(self._settings, "pyoco-server:up", _START_SEC)

    async def _keep(self, keeper: Keeper) -> Keeper:
        await keeper.begin()
        self._keeping[keeper] = asyncio.create_task(keeper.keep(), name="keeper")
        return keeper

    async def _end_worker(self, keeper: Keeper) -> None:
        keeper.stop()
        while not (task := self._keeping[keeper]).done():
            if isinstance(keeper.running, asyncio.subprocess.Process):
                await end(keeper.running, _WORKER_STOP_SEC)
            await asyncio.wait({task}, timeout=_LOOK_SEC)

    async def _start_worker(self, arguments: list[str]) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C reaches us alone, and we stop the worker in its turn.
        environment = {**without_secrets(os.environ), **self._worker_environment, "PYTHONUNBUFFERED": "1"}
        environment |= {"PYOCO_NATS_URL": self._settings.nats_url, "PYOCO_STATE_DIR": str(self._settings.state_dir)}
        # What it needs of the secrets, which our own environment has no more; keys are the gateway's alone.
        environment |= self._settings.nats_variables() | {"PYOCO_HTTP_AUTH_MODE": self._settings.http_auth_mode}
        output = self._worker_log.open("ab") if self._worker_log else contextlib.nullcontext()
        with output as stream:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pyoco_server.cli.worker", *arguments,
                env=environment, start_new_session=True, preexec_fn=die_with_parent(), stdin=asyncio.subprocess.DEVNULL,
                stdout=stream, stderr=stream,
            )  # fmt: skip
        if self._access is not None:
            self._access.note_worker(process.pid)
        return process


def _worker_name(arguments: list[str]) -> str:
    named = dict(itertools.pairwise(arguments))
    return f"worker {named.get('--worker-id', 'worker')}"


@contextlib.contextmanager
def _signals(call: Callable[[], None]):  # type: ignore[no-untyped-def]
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, call)
    try:
        yield
    finally:
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sig)
