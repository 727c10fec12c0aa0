"""The connection to NATS: reconnects for ever, fails fast while it is away, and says what it knows."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from typing_extensions import Self

from pyoco_server.errors import RevisionConflict, RightMissing, StoreFull, StoreRefused, StoreUnavailable
from pyoco_server.process.reports import Reports
from pyoco_server.process.supervision import Supervisor
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats import NatsTarget
from pyoco_server.settings.nats_signer import NatsRole
from pyoco_server.store.nats.client import PatientClient
from pyoco_server.store.nats.cluster import Cluster
from pyoco_server.store.nats.direct_reads import DirectReads
from pyoco_server.store.nats.pulse import Pulse
from pyoco_server.store.nats.refusals import denied_right, refusal

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT = 4.0
"""Seconds that one request may take before the answer is 503."""
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""The second one is what a cluster answers while the write that came first is still on its way to the replicas."""
_FULL = frozenset({10002, 10023, 10047, 10077})
"""What NATS answers when an account, the server, its disk, or a stream has no room left."""
_BROKEN_OFF = (ConnectionResetError, BrokenPipeError, nats.errors.UnexpectedEOF)
_RECONNECT_WAIT = 0.25
_CONNECT_TIMEOUT = 2
_PULSE_TIMEOUT = 2.0
_PONG_TIMEOUT = 1
SHORT_TRY = 1.0
_LOOK_AGAIN = 0.02
_LOG_EVERY = 10.0

_Answer = TypeVar("_Answer")
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


@dataclass(frozen=True)
class ServerName:
    """Tells a nats-server from others.

    Args:
        id: A new one with each of its starts.
        name: As its configuration says.
    """

    id: str
    name: str


class Connection:
    """One connection to NATS, shared by everything in a process.

    Args:
        settings: Where NATS is, and the names of what is kept there.
        name: Shown in NATS's own monitoring, such as ``pyoco-worker:cpu-1``.
        target: Where it goes instead, and as whom: ``settings.keys_target()`` for API keys.
        role: As what, where there is no ``target``; see ``NatsSettings.nats_target``.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        *,
        target: NatsTarget | None = None,
        role: NatsRole = NatsRole.GATEWAY,
    ) -> None:
        self.settings = settings
        self._target = target or settings.nats_target(role)
        self.name = name
        self.reconnected: list[Callable[[], Awaitable[None]]] = []
        """Called after each return of NATS."""
        self.down_since: float | None = time.time()
        self.up_since: float | None = None
        """Monotonic time since when requests are answered; ``None`` while NATS is away, or its JetStream is silent."""
        self.returned_at: float | None = None
        """Monotonic time of NATS's last return, or that of its JetStream; ``None`` if it was never away."""
        self.refused: StoreRefused | None = None
        """Why NATS, which is there, does not let us in; ``None`` when it does, or is away."""
        self._refusals = 0
        self._denied: tuple[float, str] | None = None
        self._doubtful: set[tuple[str, asyncio.Future[str]]] = set()
        patient = PatientClient(self._target)
        self._client: Client = patient
        self._connect_for_ever = patient.connect_for_ever
        self._js = JetStreamContext(self._client, timeout=REQUEST_TIMEOUT)
        self._js_of_short_tries = JetStreamContext(self._client, timeout=SHORT_TRY)
        self._connecting: asyncio.Task[None] | None = None
        self._reports = Reports()
        self._closing = False
        self._over = asyncio.Event()
        self.cluster = Cluster(self._client, lambda: self.down_since)
        """What is known of the servers behind it, and of their replicas."""
        self.direct_reads = DirectReads()
        """What is known of streams that cannot be read directly."""
        self._pulse = Pulse(
            patient, self.cluster, self._ask_pulse, self._ping,
            settings.work_stream if target is None else f"KV_{settings.auth_kv_bucket}",
            on_silence=self._on_silence, on_return=self._on_answers,
        )  # fmt: skip
        self.supervisor = Supervisor(self._over)

    @property
    def is_up(self) -> bool:
        """Tell whether requests can be sent now."""
        return bool(self._client.is_connected)

    @property
    def max_payload(self) -> int:
        """Largest message that the server takes, in bytes."""
        return int(self._client.max_payload)

    @property
    def server_version(self) -> str:
        """Version of the nats-server that we are connected to.

        Raises:
            StoreUnavailable: at once, when NATS is away.
        """
        version = self.client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    @property
    def server(self) -> ServerName:
        """Which nats-server we are connected to, or were last."""
        info = self._client._server_info
        return ServerName(info.get("server_id", ""), info.get("server_name", ""))

    @property
    def asks_who_we_are(self) -> bool:
        """Whether the nats-server that we are connected to, or were last, lets in only those whom it knows."""
        info = self._client._server_info
        return bool(info.get("auth_required") or info.get("tls_verify"))

    @property
    def client(self) -> Client:
        """The connected client.

        Raises:
            StoreUnavailable: at once, when NATS is away.
            StoreRefused: NATS is there, and does not let us in.
        """
        if not self._client.is_connected:
            if self.refused is not None:
                raise StoreRefused(self.refused.message, hint=self.refused.hint)
            raise StoreUnavailable(f"NATS is not reachable at {self.shown_url}")
        return self._client

    @property
    def is_turned_away(self) -> bool:
        """Tell whether each server that is named, one after the other, has not let us in."""
        return self._refusals >= len(self._target.servers)

    @property
    def js(self) -> JetStreamContext:
        """JetStream on the connected client.

        Raises:
            StoreUnavailable: at once, when NATS is away.
        """
        _ = self.client
        return self._js

    @property
    def js_of_short_tries(self) -> JetStreamContext:
        """As ``js``, for what is tried again: without a leader nobody answers, and nobody answers later either."""
        _ = self.client
        return self._js_of_short_tries

    @property
    def shown_url(self) -> str:
        """Where NATS is, without passwords."""
        return self._target.shown_url

    async def start(self) -> Self:
        """Begin to connect, in the background and for as long as it takes.

        Raises:
            InvalidSetting: a file with a credential or a certificate is missing, or holds something else.
        """
        self._target.check_files()
        self._connecting = asyncio.create_task(self._connect(), name="nats-connect")
        self.supervisor.every("nats-pulse", self._pulse.beat, self._pulse.pause)
        return self

    async def wait_up(self, timeout: float) -> bool:
        """Wait until NATS is there, ``timeout`` seconds at most.

        Raises:
            StoreRefused: it is there, and does not let us in.
        """
        deadline = time.monotonic() + timeout
        while not self.is_up and time.monotonic() < deadline:
            if self.is_turned_away:
                _ = self.client
            if self._connecting and self._connecting.done():
                self._connecting.result()
            await asyncio.sleep(_LOOK_AGAIN)
        return self.is_up

    async def close(self) -> None:
        """Close the connection; what was published before has been sent."""
        self._closing = True
        self._over.set()
        await self.supervisor.close(_PULSE_TIMEOUT + 1)
        if self._connecting is None:
            return  # it was never begun
        if not self._connecting.done():
            self._connecting.cancel()
            await asyncio.wait({self._connecting}, timeout=2)
        if self._client.is_connected:
            with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
                await self._client.flush(timeout=2)
        try:
            with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
                await asyncio.wait_for(self._client.close(), 3)
        except RuntimeError as error:
            if _CLOSED not in str(error):
                raise
            # NATS went first, and nats-py would have sent what was left; only uvloop makes an error of it.
            log.debug("what was left for NATS was not sent: it is gone", nats_url=self.shown_url)

    @contextlib.contextmanager
    def errors(self, what: str, *, missing: bool = False) -> Iterator[None]:
        """Turn the client's errors into ours.

        Args:
            what: What was being done, for the message: "reading run …".
            missing: Let NATS's own "not found" through, for a caller that knows what it means.

        Raises:
            StoreUnavailable: NATS did not answer.
            StoreFull: it has no room left.
            RevisionConflict: the expected revision was not the last one.
        """
        try:
            yield
        except APIError as error:
            if error.err_code in WRONG_LAST_SEQUENCE:
                raise RevisionConflict(f"{what}: somebody else wrote first") from None
            if missing and isinstance(error, NotFoundError):
                raise
            kind = StoreFull if error.err_code in _FULL else StoreUnavailable
            raise kind(f"{what}: NATS answered {error.description or error}") from error
        except _AWAY as error:
            detail = self._just_denied() or str(error) or type(error).__name__
            raise StoreUnavailable(f"{what}: NATS did not answer ({detail})") from error
        except RuntimeError as error:
            if _CLOSED not in str(error):
                raise
            # The socket is closed, and the client has not noticed yet; only uvloop makes an error of it.
            raise StoreUnavailable(f"{what}: NATS did not answer (the connection is closed)") from error

    async def request(
        self, subject: str, payload: bytes = b"", *, what: str, timeout: float = REQUEST_TIMEOUT, **options: Any
    ) -> Any:
        """Send a request and give the answering message."""
        with self.errors(what):
            return await self.client.request(subject, payload, timeout=timeout, **options)

    async def _ask_pulse(self, subject: str) -> bytes:
        asking = self.request(subject, what="asking whether JetStream answers", timeout=_PULSE_TIMEOUT)
        return bytes((await self.if_allowed(subject, asking)).data)

    async def _ping(self) -> None:
        with self.errors("waiting for a sign of life"):
            await self.client.flush(_PONG_TIMEOUT)

    def _on_silence(self) -> None:
        self.up_since = None

    def _on_answers(self) -> None:
        self.up_since = self.returned_at = time.monotonic()

    async def if_allowed(self, subject: str, asking: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Send a request that we may have no right to. NATS tells so apart from it, and never answers it.

        Args:
            subject: The request's subject.
            asking: The request.

        Raises:
            RightMissing: we have none.
        """
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        request = asyncio.create_task(asking)
        self._doubtful.add((subject, told))
        either: set[asyncio.Future[Any]] = {request, told}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                return request.result()
            raise RightMissing(told.result())
        finally:
            self._doubtful.discard((subject, told))
            request.cancel()

    async def _connect(self) -> None:
        await self._connect_for_ever(
            name=self.name,
            reconnect_time_wait=_RECONNECT_WAIT,
            connect_timeout=_CONNECT_TIMEOUT,
            # Two missed answers in six seconds mean a dead peer that never closed its socket.
            ping_interval=3,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        self._note_up()
        log.info("connected to NATS", nats_url=self.shown_url)

    def _note_up(self) -> None:
        self.down_since = self.refused = None
        self._refusals = 0
        self.up_since = time.monotonic()

    async def _on_error(self, error: Exception) -> None:
        if denied := denied_right(error):
            self._denied = (time.monotonic(), denied)
            self.direct_reads.note_denied(denied)
            asked = [told for subject, told in self._doubtful if f'"{subject.lower()}"' in denied]
            for told in asked:
                if not told.done():
                    told.set_result(denied)
            if not asked:
                self.tell(log.error, "NATS denies us a right", reason=denied)
        elif refused := refusal(error, self._target):
            self.refused = refused
            self._refusals += 1
            self.tell(log.error, "NATS does not let us in", reason=refused.message, hint=refused.hint)
        elif self.is_up:
            self.tell(log.warning, "trouble with the connection to NATS", reason=repr(error))
        else:
            if not isinstance(error, _BROKEN_OFF):  # NATS breaks off after a refusal, and may be seen doing it
                self.refused, self._refusals = None, 0
            self.tell(log.warning, "cannot reach NATS, trying again", nats_url=self.shown_url, reason=repr(error))

    def tell(self, how: Callable[..., Any], what: str, *, every_sec: float = _LOG_EVERY, **context: Any) -> None:
        """Log what is new at once, and what lasts now and then, with how often it has happened.

        Args:
            how: A method of a logger.
            what: The line.
            every_sec: The same line is told again after so many seconds at the earliest.
            context: Its fields; with others it is another line.
        """
        times = self._reports.due(f"{what} {context}", time.monotonic(), every_sec)
        if times:
            how(what, connection=self.name, **context, **({"times": times} if times > 1 else {}))

    def _just_denied(self) -> str | None:
        at, denied = self._denied or (0.0, None)
        return denied if time.monotonic() - at <= REQUEST_TIMEOUT + 1 else None

    async def _on_disconnected(self) -> None:
        self.up_since = None
        if self.down_since is None and not self._closing:
            self.down_since = time.time()
            log.warning("lost the connection to NATS", nats_url=self.shown_url)

    async def _on_reconnected(self) -> None:
        away = time.time() - (self.down_since or time.time())
        self._note_up()
        self.direct_reads.forget()
        self.returned_at = self.up_since
        log.info("NATS is back", nats_url=self.shown_url, away_sec=round(away, 1))
        for callback in self.reconnected:
            try:
                await callback()
            except Exception:  # a bug: it is logged; the client would take it for a failure of the connection
                log.exception("what was to happen after NATS's return has failed")


@contextlib.asynccontextmanager
async def connected(
    settings: Settings,
    name: str,
    timeout: float,
    *,
    target: NatsTarget | None = None,
    role: NatsRole = NatsRole.GATEWAY,
) -> AsyncIterator[Connection]:
    """Give a connection for as long as the block lasts.

    Args:
        settings: As for ``Connection``.
        name: As for ``Connection``.
        timeout: Seconds to wait for NATS.
        target: As for ``Connection``.
        role: As for ``Connection``.

    Raises:
        StoreUnavailable: NATS cannot be reached within ``timeout`` seconds.
        StoreRefused: it is there, and does not let us in.
    """
    connection = await Connection(settings, name, target=target, role=role).start()
    try:
        if not await connection.wait_up(timeout):
            raise StoreUnavailable(
                f"NATS is not reachable at {connection.shown_url}",
                hint="Is it running? Name another address by --nats-url or PYOCO_NATS_URL.",
            )
        yield connection
    finally:
        await connection.close()
