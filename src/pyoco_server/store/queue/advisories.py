"""What the server itself says of jobs that it gave up.

It says so once, to whoever listens; a stream listens, so that nothing is missed while no gateway runs.
"""

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass

import structlog
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import NotFoundError

from pyoco_server.process.waiting import first_event
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.pull_line import NO_MESSAGES, TIMED_OUT, PullLine
from pyoco_server.store.topology import MSG_TERMINATED

log = structlog.get_logger(__name__)

_CONSUMER = "pyoco_gateways"
"""One for all gateways: each advisory is given to one of them."""
_ACK_WAIT = 30.0
_MAX_ACK_PENDING = 100
_GRACE = 2.0
_REFUSED_PAUSE = 0.5


@dataclass(frozen=True)
class Advisory:
    """The server's word on one job: not delivered any more, or taken off the queue by whoever received it."""

    id: str
    terminated: bool
    """Taken off the queue by a receiver; else delivered as often as its consumer allows."""
    consumer: str
    job_seq: int
    deliveries: int
    reason: str
    _message: Msg
    _connection: Connection

    async def done(self) -> None:
        """Forget it."""
        await self._answer(b"+ACK")

    async def later(self, seconds: float) -> None:
        """Give it again, to any gateway, after so many seconds."""
        await self._answer(b'-NAK {"delay": %d}' % int(seconds * 1e9))

    async def _answer(self, payload: bytes) -> None:
        with self._connection.errors("acknowledging an advisory"):
            await self._connection.client.publish(self._message.reply, payload)


class AdvisoryQueue:
    """Takes one advisory at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream = connection.settings.advisory_stream
        self._line: PullLine | None = None
        self._arrived: deque[Msg] = deque()
        self._ended = False
        self._refused = False
        self._wake = asyncio.Event()
        connection.reconnected.append(self._interrupt)

    async def next(self, wait: float, stop: asyncio.Event) -> Advisory | None:
        """Wait for an advisory.

        Args:
            wait: Seconds after which ``None`` is the answer.
            stop: Set from outside to end the wait.

        Raises:
            StoreUnavailable: NATS is away.
        """
        if self._refused:  # the consumer may be gone
            self._refused = False
            await self.close()
            await first_event(_REFUSED_PAUSE, stop)
        if self._line is None:
            await self._ensure_consumer()
            self._line = PullLine(self._connection, self._stream, _CONSUMER, self._on_message, self._on_end)
        if not self._arrived:
            self._ended = False
            await self._line.request(batch=1, expires=wait)
            deadline = time.monotonic() + wait + _GRACE
            while not self._arrived and not self._ended and not stop.is_set():
                self._wake.clear()
                left = deadline - time.monotonic()
                if left <= 0:
                    self._connection.tell(log.warning, "the consumer of advisories does not answer; asking anew")
                    await self.close()
                    return None
                await first_event(left, self._wake, stop)
        return await self._read(self._arrived.popleft()) if self._arrived else None

    async def close(self) -> None:
        """Take the open request back; what arrives all the same is given to another gateway."""
        line, self._line = self._line, None
        if line is not None:
            await line.withdraw()

    async def _read(self, message: Msg) -> Advisory | None:
        try:
            body = json.loads(message.data)
            return Advisory(
                id=str(body["id"]),
                terminated=message.subject.startswith(MSG_TERMINATED),
                consumer=str(body["consumer"]),
                job_seq=int(body["stream_seq"]),
                deliveries=int(body["deliveries"]),
                reason=str(body.get("reason") or ""),
                _message=message,
                _connection=self._connection,
            )
        except (ValueError, KeyError, TypeError) as error:
            log.error("an advisory cannot be read; it is dropped", subject=message.subject, reason=repr(error))
            with self._connection.errors("acknowledging an advisory"):
                await self._connection.client.publish(message.reply, b"+ACK")
            return None

    async def _interrupt(self) -> None:
        """After a return of NATS: the request is gone, the consumer perhaps too."""
        self._refused = self._ended = True
        self._wake.set()

    async def _ensure_consumer(self) -> None:
        js = self._connection.js
        with self._connection.errors("creating the consumer of advisories"):
            try:
                await js.consumer_info(self._stream, _CONSUMER)
            except NotFoundError:
                await js.add_consumer(
                    self._stream,
                    api.ConsumerConfig(
                        durable_name=_CONSUMER,
                        ack_policy=api.AckPolicy.EXPLICIT,
                        ack_wait=_ACK_WAIT,
                        max_ack_pending=_MAX_ACK_PENDING,
                    ),
                )

    def _on_message(self, message: Msg) -> None:
        self._arrived.append(message)
        self._wake.set()

    def _on_end(self, status: int, text: str) -> None:
        if status not in (NO_MESSAGES, TIMED_OUT):
            self._connection.tell(log.warning, "a pull of advisories was refused", status=status, reason=text)
            self._refused = True
        self._ended = True
        self._wake.set()
