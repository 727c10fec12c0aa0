"""What ``pyoco-server up`` runs: the gateway, and beside it whatever was asked for, watched and stopped in order."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from pyoco_server.embedded.listener import Listener, bind, check_exposure, check_nats_exposure
from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.embedded.orphans import die_with_parent
from pyoco_server.errors import CommandFailed
from pyoco_server.gateway.memory import settle_memory
from pyoco_server.settings import Settings, without_secrets

log = structlog.get_logger(__name__)

_WORKER_STOP_SEC = 45.0
"""A worker drains for 30 s at most, then hands its runs back."""
_START_SEC = 30.0


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
        self._nats = NatsServer(nats_store, *nats_listen, settings.nats_sync) if nats_store else None
        self._nats_host = nats_listen[0]
        self._worker_arguments = workers or []
        self._worker_log = worker_log
        self._worker_environment = worker_environment or {}
        self._workers: list[asyncio.subprocess.Process] = []
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
            if self._nats is not None:
                check_nats_exposure(self._nats_host, insecure=self._insecure)
                await self._nats.start()
                self._settings = self._settings.at(self._nats.url, self._nats.monitor_url)
            self._listener = Listener(self._settings, sock)
            self._serving = asyncio.create_task(self._listener.serve(), name="gateway")
            if not await self._listener.wait_ready(_START_SEC, store=self._nats is not None):
                raise CommandFailed("the gateway did not start; its log says why")
            for arguments in self._worker_arguments:
                self._workers.append(await self._start_worker(arguments))
        except BaseException:
            await self.stop()
            sock.close()
            raise
        log.info("pyoco-server is up", url=self.url, nats_url=self._nats.url if self._nats else None)

    async def serve(self) -> None:
        """Start, run until Ctrl-C or SIGTERM, stop.

        Raises:
            CommandFailed: a part died meanwhile.
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
        """Wait for ``stop``.

        Raises:
            CommandFailed: a part died before. Nothing is restarted silently. A worker that stopped in order, because it
                was asked to drain, takes nothing with it.
        """
        parts: dict[asyncio.Task[object], str] = {asyncio.create_task(_wait(stop)): ""}
        if self._nats is not None:
            parts[asyncio.create_task(self._nats.wait())] = "the embedded nats-server"
        for worker in self._workers:
            parts[asyncio.create_task(_wait_for_failure(worker))] = "the worker"
        if self._serving is not None:
            parts[self._serving] = "the gateway"
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for task in parts:
            if task is not self._serving:
                task.cancel()
        died = [parts[task] for task in done if parts[task]]
        if died and not stop.is_set():
            raise CommandFailed(f"{died[0]} has ended by itself; everything is stopped", hint="Its log says why.")

    async def stop(self) -> None:
        """Stop in order: workers first, so that they can still write; then the gateway; NATS last."""
        for worker in self._workers:
            if worker.returncode is None:
                worker.terminate()
        for worker in self._workers:
            try:
                await asyncio.wait_for(worker.wait(), _WORKER_STOP_SEC)
            except asyncio.TimeoutError:
                log.error("a worker does not stop; killing it", pid=worker.pid)
                worker.kill()
                await worker.wait()
        if self._listener is not None and self._serving is not None:
            self._listener.stop()
            await asyncio.wait({self._serving}, timeout=15)
        if self._nats is not None:
            await self._nats.stop()

    async def _start_worker(self, arguments: list[str]) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C reaches us alone, and we stop the worker in its turn.
        environment = {**without_secrets(os.environ), **self._worker_environment, "PYTHONUNBUFFERED": "1"}
        environment |= {"PYOCO_NATS_URL": self._settings.nats_url, "PYOCO_STATE_DIR": str(self._settings.state_dir)}
        # What it needs of the secrets, which our own environment has no more; keys are the gateway's alone.
        environment |= self._settings.nats_variables() | {"PYOCO_HTTP_AUTH_MODE": self._settings.http_auth_mode}
        output = self._worker_log.open("ab") if self._worker_log else contextlib.nullcontext()
        with output as stream:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pyoco_server.cli.worker", *arguments,
                env=environment, start_new_session=True, preexec_fn=die_with_parent(), stdin=asyncio.subprocess.DEVNULL,
                stdout=stream, stderr=stream,
            )  # fmt: skip


async def _wait_for_failure(worker: asyncio.subprocess.Process) -> None:
    if await worker.wait() == 0:
        log.warning("the worker has stopped in order; the rest goes on without it", pid=worker.pid)
        await asyncio.Event().wait()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


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
