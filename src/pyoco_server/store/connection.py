"""The connection to NATS: reconnects for ever, fails fast while it is away, and says what it knows."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from typing_extensions import Self

from pyoco_server.errors import RevisionConflict, StoreUnavailable
from pyoco_server.settings import Settings

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT = 4.0
"""Seconds that one request may take before the answer is 503."""
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""The second one is what a cluster answers while the write that came first is still on its way to the replicas."""
_RECONNECT_WAIT = 0.25
_LOG_EVERY = 10.0

_CLOSED = "the handler is closed"
_AWAY = (
    nats.errors.TimeoutError,
    asyncio.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.NoServersError,
    NoStreamResponseError,
    OSError,
)


class Connection:
    """One connection to NATS, shared by everything in a process.

    Args:
        settings: Where NATS is.
        name: Shown in NATS's own monitoring, such as ``pyoco-worker:cpu-1``.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.name = name
        self.reconnected: list[Callable[[], Awaitable[None]]] = []
        """Called after each return of NATS."""
        self.down_since: float | None = time.time()
        self.up_since: float | None = None
        """Monotonic time since when requests can be sent; ``None`` while NATS is away."""
        self.returned_at: float | None = None
        """Monotonic time of NATS's last return; ``None`` if it was never away."""
        self._client = Client()
        self._js = JetStreamContext(self._client, timeout=REQUEST_TIMEOUT)
        self._connecting: asyncio.Task[None] | None = None
        self._last_logged = 0.0
        self._closing = False

    @property
    def is_up(self) -> bool:
        """Tell whether requests can be sent now."""
        return bool(self._client.is_connected)

    @property
    def max_payload(self) -> int:
        """Largest message that the server takes, in bytes."""
        return int(self._client.max_payload)

    @property
    def client(self) -> Client:
        """The connected client.

        Raises:
            StoreUnavailable: at once, when NATS is away.
        """
        if not self._client.is_connected:
            raise StoreUnavailable(f"NATS is not reachable at {self.shown_url}")
        return self._client

    @property
    def js(self) -> JetStreamContext:
        """JetStream on the connected client.

        Raises:
            StoreUnavailable: at once, when NATS is away.
        """
        _ = self.client
        return self._js

    @property
    def shown_url(self) -> str:
        """Where NATS is, without passwords."""
        split = (server.rpartition("://") for server in self.settings.nats_servers)
        return ",".join(f"{scheme or 'nats'}://{rest.rpartition('@')[2]}" for scheme, _, rest in split)

    async def start(self) -> Self:
        """Begin to connect, in the background and for as long as it takes."""
        self._connecting = asyncio.create_task(self._connect(), name="nats-connect")
        return self

    async def wait_up(self, timeout: float) -> bool:
        """Wait until NATS is there, ``timeout`` seconds at most."""
        deadline = time.monotonic() + timeout
        while not self.is_up and time.monotonic() < deadline:
            if self._connecting and self._connecting.done():
                self._connecting.result()
            await asyncio.sleep(0.02)
        return self.is_up

    async def close(self) -> None:
        """Close the connection; what was published before has been sent."""
        self._closing = True
        if self._connecting and not self._connecting.done():
            self._connecting.cancel()
            await asyncio.wait({self._connecting}, timeout=2)
        if self._client.is_connected:
            with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
                await self._client.flush(timeout=2)
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
            await asyncio.wait_for(self._client.close(), 3)

    @contextlib.contextmanager
    def errors(self, what: str, *, missing: bool = False) -> Iterator[None]:
        """Turn the client's errors into ours.

        Args:
            what: What was being done, for the message: "reading run …".
            missing: Let NATS's own "not found" through, for a caller that knows what it means.

        Raises:
            StoreUnavailable: NATS did not answer.
            RevisionConflict: the expected revision was not the last one.
        """
        try:
            yield
        except APIError as error:
            if error.err_code in WRONG_LAST_SEQUENCE:
                raise RevisionConflict(f"{what}: somebody else wrote first") from None
            if missing and isinstance(error, NotFoundError):
                raise
            raise StoreUnavailable(f"{what}: NATS answered {error.description or error}") from error
        except _AWAY as error:
            detail = str(error) or type(error).__name__
            raise StoreUnavailable(f"{what}: NATS did not answer ({detail})") from error
        except RuntimeError as error:
            if _CLOSED not in str(error):
                raise
            # The socket is closed, and the client has not noticed yet; only uvloop makes an error of it.
            raise StoreUnavailable(f"{what}: NATS did not answer (the connection is closed)") from error

    async def request(self, subject: str, payload: bytes = b"", *, what: str, **options: Any) -> Any:
        """Send a request and give the answering message."""
        with self.errors(what):
            return await self.client.request(subject, payload, timeout=REQUEST_TIMEOUT, **options)

    async def _connect(self) -> None:
        await self._client.connect(
            self.settings.nats_servers,
            name=self.name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_WAIT,  # type: ignore[arg-type]
            connect_timeout=2,
            # Two missed answers in six seconds mean a dead peer that never closed its socket.
            ping_interval=3,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        self.down_since = None
        self.up_since = time.monotonic()
        log.info("connected to NATS", nats_url=self.shown_url)

    async def _on_error(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._last_logged >= _LOG_EVERY:
            self._last_logged = now
            log.warning("cannot reach NATS, trying again", nats_url=self.shown_url, reason=repr(error))

    async def _on_disconnected(self) -> None:
        self.up_since = None
        if self.down_since is None and not self._closing:
            self.down_since = time.time()
            log.warning("lost the connection to NATS", nats_url=self.shown_url)

    async def _on_reconnected(self) -> None:
        away = time.time() - (self.down_since or time.time())
        self.down_since = None
        self.up_since = self.returned_at = time.monotonic()
        log.info("NATS is back", nats_url=self.shown_url, away_sec=round(away, 1))
        for callback in self.reconnected:
            await callback()
