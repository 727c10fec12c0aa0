"""The gateway's HTTP server inside a process that also does other things."""

import asyncio
import contextlib
import socket
from typing import Any

import structlog
import uvicorn

from pyoco_server.errors import CommandFailed
from pyoco_server.gateway.app import create_app
from pyoco_server.gateway.http.http1 import Http1Protocol
from pyoco_server.model.addresses import is_loopback
from pyoco_server.model.parts import Parts
from pyoco_server.settings.environment import Settings

log = structlog.get_logger(__name__)

_DRAIN_SEC = 5
_LOOK_EVERY = 0.01


def bind(host: str, port: int) -> socket.socket:
    """Take the port before anything else is started.

    Raises:
        CommandFailed: it is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once only where it is said that this is TCP: else an answer of two parts waits for 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise CommandFailed(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="Another program has the port, or the address is not of this machine. Try --port 8001.",
        ) from None
    return sock


def check_exposure(sock: socket.socket, settings: Settings, *, insecure: bool) -> None:
    """Refuse to serve other machines without asking for keys, unless that is meant.

    Args:
        sock: A bound socket.
        settings: Whether keys are asked for.
        insecure: Whether the user has said that it is meant.

    Raises:
        CommandFailed: it was not said.
    """
    address = sock.getsockname()[0]
    if settings.http_auth_mode != "none" or is_loopback(address):
        return
    if not insecure:
        raise CommandFailed(
            f"on {address} everybody who reaches this machine could run code on the workers: no keys are asked for",
            hint="Turn keys on: PYOCO_HTTP_AUTH_MODE=api_key, see docs/how-to/keys.md. Or leave --host out; or say "
            "--insecure, if something else guards the address.",
        )
    log.warning("serving without keys: everybody who reaches this address may run code on the workers", address=address)


def check_nats_exposure(host: str, *, insecure: bool) -> bool:
    """Refuse to let other machines reach an embedded NATS, unless that is meant.

    With API keys it asks for a credential, but can give one to commands on this machine alone; so where others are to
    reach it, it lets everybody in.

    Args:
        host: Where it would listen.
        insecure: Whether the user has said that it is meant.

    Returns:
        Whether it is reached from this machine alone.

    Raises:
        CommandFailed: it was not said, or there is no such address.
    """
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise CommandFailed(
            f"NATS cannot listen on {host!r}: {getattr(error, 'strerror', None) or error}",
            hint="Leave --nats-listen-host out, or give it an address of this machine.",
        ) from None
    if all(is_loopback(address) for address in found):
        return True
    if not insecure:
        raise CommandFailed(
            f"on {host} everybody who reaches this machine could run code on the workers and read all data: the "
            "nats-server that --with-nats starts can give credentials to this machine's commands alone, so for other "
            "machines it lets everybody in",
            hint="Leave --nats-listen-host out; or start a nats-server with users of its own and name it by "
            "--nats-url, see docs/how-to/secure-nats.md; or say --insecure, if something else guards the address.",
        )
    log.warning("NATS lets everybody in who reaches this address, keys or not", address=host)
    return False


class Listener:
    """uvicorn on a socket that is bound already, stopped by us and not by its own signal handlers."""

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        self._socket = sock
        self._app = create_app(settings)
        self._server = _Server(
            uvicorn.Config(
                self._app,
                http=Http1Protocol,
                ws="none",
                log_config=None,
                access_log=settings.log_level == "DEBUG",
                timeout_graceful_shutdown=_DRAIN_SEC,
                proxy_headers=False,  # anybody on this machine could name any address as theirs
                lifespan="on",
            )
        )

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        host, port = self._socket.getsockname()[:2]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

    async def serve(self) -> None:
        """Serve until ``stop``."""
        await self._server.serve(sockets=[self._socket])

    async def wait_ready(self, timeout: float, *, store: bool) -> bool:
        """Wait until requests are answered, ``timeout`` seconds at most.

        Args:
            timeout: Seconds.
            store: Wait for NATS and the index too, so that runs can be submitted and listed.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        while asyncio.get_running_loop().time() < deadline:
            gateway = getattr(self._app.state, "gateway", None)
            if self._server.started and (not store or (gateway and gateway.run_feed.caught_up.is_set())):
                return True
            if self._server.should_exit:
                return False
            await asyncio.sleep(_LOOK_EVERY)  # uvicorn offers no event for its start
        return False

    def tell_of(self, parts: Parts) -> None:
        """Have the gateway tell of what runs beside it."""
        self._app.state.gateway.parts = parts

    async def lost(self) -> str:
        """Wait until the gateway cannot go on; why is the answer."""
        supervisor = self._app.state.gateway.supervisor
        await supervisor.lost.wait()
        return "; ".join(task.sentence() for task in supervisor.failing() if task.vital)

    def stop(self) -> None:
        """End ``serve`` soon: open streams are ended, requests get a few seconds."""
        gateway = getattr(self._app.state, "gateway", None)
        if gateway is not None:
            gateway.stopping.set()  # open watches end now, by themselves, and not by being cut off later
        self._server.handle_exit(0, None)


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        """Leave the process's signals alone."""
        return contextlib.nullcontext()
