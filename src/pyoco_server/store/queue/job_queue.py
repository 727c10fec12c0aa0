"""The queue: jobs waiting per tag, and the deliveries that give the right to run them."""

import asyncio
from dataclasses import dataclass

import structlog
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js import api
from nats.js.errors import NotFoundError

from pyoco_server.errors import InvalidInput, RightMissing, StoreUnavailable
from pyoco_server.model.job import ALWAYS_WHOLE, Job
from pyoco_server.model.tags import check_tag
from pyoco_server.store.nats.connection import REQUEST_TIMEOUT, Connection
from pyoco_server.store.nats.direct import remove_message
from pyoco_server.store.nats.messages import publish, read

log = structlog.get_logger(__name__)

_MAKERS = "pyoco_gateways"
"""Of all gateways one answers each worker."""


@dataclass(frozen=True)
class Delivery:
    """One delivery of a job. Its last word is sent without waiting for an answer: the record is the fence, not that."""

    tag: str
    data: bytes
    subject: str
    seq: int
    num_delivered: int
    _message: Msg
    _connection: Connection

    async def ack(self) -> None:
        """Take the job off the queue."""
        await self._answer(b"+ACK")

    async def give_back(self, delay: float = 0.0) -> None:
        """Put the job back on the queue, to be delivered again after ``delay`` seconds."""
        await self._answer(b"-NAK" if delay <= 0 else b'-NAK {"delay": %d}' % int(delay * 1e9))

    async def drop(self, reason: str) -> None:
        """Take a job that nobody can run off the queue."""
        await self._answer(b"+TERM " + reason.encode())

    async def in_progress(self, timeout: float) -> None:
        """Tell the server that the job is still being worked on, and wait for its word.

        Args:
            timeout: Seconds to wait.

        Raises:
            StoreUnavailable: no word came; the job may be given to somebody else.
        """
        with self._connection.errors("acknowledging progress"):
            await self._connection.client.request(self._message.reply, b"+WPI", timeout=timeout)

    async def _answer(self, payload: bytes) -> None:
        with self._connection.errors("acknowledging a job"):
            await self._connection.client.publish(self._message.reply, payload)


@dataclass(frozen=True)
class ConsumerFigures:
    """What the server says of a tag's consumer."""

    ack_wait_sec: float
    waiting: int
    """Jobs that were not delivered yet."""
    unacknowledged: int
    """Jobs that were delivered and neither acknowledged nor given back: of runs that run, or whose worker is lost."""
    max_unacknowledged: int
    redelivered: int = 0
    """Those of the unacknowledged ones that were delivered more than once."""


class JobQueue:
    """Publishing, and the durable consumer of each tag."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._settings = connection.settings
        self._may_create = True

    async def publish(self, job: Job, tag: str, *, requeued: str | None = None, most: int | None = ALWAYS_WHOLE) -> int:
        """Put a job on the queue of its tag; the server drops a repeat within five minutes.

        Args:
            job: The job.
            tag: The tag.
            most: Bytes that the message may have; a larger one is sealed.
            requeued: Why there is a second job, such as the record's revision: repeats are told by it, and the run's
                first job does not count as one.

        Returns:
            The job's sequence in the stream.

        Raises:
            StoreUnavailable: no acknowledgement; publishing again is safe.
        """
        name = job.run_id if requeued is None else f"{job.run_id}:{requeued}"
        return await self._publish(tag, job.to_json(most), name, f"queueing run {job.run_id}")

    async def look(self, seq: int) -> tuple[str, bytes] | None:
        """Read a job where it lies: its tag and the message; ``None`` if it is not on the queue (any more)."""
        found = await read(self.connection, self._settings.work_stream, seq=seq, what=f"reading job {seq}")
        if found is None:
            return None
        return (found.subject or "").removeprefix(f"{self._settings.work_subject_prefix}."), found.data or b""

    async def publish_again(self, tag: str, raw: bytes, message_id: str) -> int:
        """Put a job that can no longer be delivered on the queue as a new message.

        Args:
            tag: Its queue.
            raw: The job as it was.
            message_id: Must not be the run's id: under that name the server has seen a job already.

        Raises:
            StoreUnavailable: no acknowledgement; publishing again is safe.
        """
        return await self._publish(tag, raw, message_id, "queueing a job again")

    async def _publish(self, tag: str, payload: bytes, message_id: str, what: str) -> int:
        subject = f"{self._settings.work_subject_prefix}.{tag}"
        headers = {"Nats-Msg-Id": message_id}
        return await publish(self.connection, subject, payload, headers, what=what, patient=True)

    async def remove(self, seq: int) -> bool:
        """Take a job off the queue without its consumer; ``False`` if it was not there."""
        return await remove_message(self.connection, self._settings.work_stream, seq)

    def tag_of_consumer(self, name: str) -> str:
        """Give the tag that a consumer of that name serves."""
        return name.removeprefix(f"{self._settings.consumer_prefix}_")

    def consumer_name(self, tag: str) -> str:
        """Give the name of a tag's durable consumer."""
        return f"{self._settings.consumer_prefix}_{tag}"

    async def ensure_consumer(self, tag: str) -> float:
        """Create a tag's consumer if it is missing; who may not do it himself has a gateway do it.

        Returns:
            The consumer's AckWait in seconds, which an existing consumer keeps from its creation.

        Raises:
            StoreUnavailable: NATS is away, or we may not create it and no gateway answers.
        """
        js, name = self.connection.js, self.consumer_name(tag)
        with self.connection.errors(f"creating the consumer {name}"):
            try:
                info = await js.consumer_info(self._settings.work_stream, name)
            except NotFoundError:
                # Whoever may make consumers may have NATS write to any subject: workers need not be given that right.
                await (self._create_consumer(tag) if self._may_create else self._have_consumer_made(tag))
                info = await js.consumer_info(self._settings.work_stream, name)
        return float(info.config.ack_wait or self._settings.consumer_ack_wait_sec)

    async def make_consumers_for_others(self) -> None:
        """Answer, from now on, workers that may not create the consumers of their tags; survives reconnects."""

        async def receive(message: Msg) -> None:
            tag = message.subject.removeprefix(self._wishes)
            try:
                await self.ensure_consumer(check_tag(tag))
            except (InvalidInput, StoreUnavailable) as error:
                self.connection.tell(
                    log.warning, "a worker's tag gets no consumer", tag=tag[:100], reason=error.message
                )
                return  # it asks again
            await self.connection.client.publish(message.reply, b"")

        with self.connection.errors("listening for workers that need consumers"):
            await self.connection.client.subscribe(f"{self._wishes}*", queue=_MAKERS, cb=receive)

    @property
    def _wishes(self) -> str:
        return f"{self._settings.control_subject_prefix}.consumer."

    async def _have_consumer_made(self, tag: str) -> None:
        try:
            await self.connection.client.request(f"{self._wishes}{tag}", timeout=REQUEST_TIMEOUT)
        except (NoRespondersError, asyncio.TimeoutError) as error:
            raise RightMissing(
                f"the tag {tag!r} has no consumer yet, our user may not make it, and no gateway answers",
                hint="Start a gateway: it makes the consumers for the workers.",
            ) from error

    async def _create_consumer(self, tag: str) -> None:
        stream, name = self._settings.work_stream, self.consumer_name(tag)
        config = api.ConsumerConfig(
            durable_name=name,
            filter_subject=f"{self._settings.work_subject_prefix}.{tag}",
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._settings.consumer_ack_wait_sec,
            max_deliver=self._settings.consumer_max_deliver,
            max_ack_pending=self._settings.consumer_max_ack_pending,
        )  # nothing else: a worker of the existing system asks for just that, and does not start where more was set
        creating = self.connection.js.add_consumer(stream, config)
        try:
            await self.connection.if_allowed(f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}", creating)
        except RightMissing:
            self._may_create = False
            await self._have_consumer_made(tag)

    async def figures(self, tag: str) -> ConsumerFigures | None:
        """Read how a tag's consumer stands; ``None`` if no worker has made one yet.

        Raises:
            StoreUnavailable: NATS is away.
        """
        js, name = self.connection.js, self.consumer_name(tag)
        with self.connection.errors(f"reading the consumer {name}"):
            try:
                info = await js.consumer_info(self._settings.work_stream, name)
            except NotFoundError:
                return None
        return ConsumerFigures(
            ack_wait_sec=float(info.config.ack_wait or self._settings.consumer_ack_wait_sec),
            waiting=info.num_pending or 0,
            unacknowledged=info.num_ack_pending or 0,
            max_unacknowledged=info.config.max_ack_pending or self._settings.consumer_max_ack_pending,
            redelivered=info.num_redelivered or 0,
        )
