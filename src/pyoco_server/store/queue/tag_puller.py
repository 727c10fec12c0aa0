"""When a job is fetched: pull requests for one slot, over several tags, and how long they have gone unanswered."""

import asyncio
import time
from collections import deque

import structlog
from nats.aio.msg import Msg

from pyoco_server.errors import StoreUnavailable
from pyoco_server.process.waiting import first_event
from pyoco_server.store.nats.pull_line import CONFLICT, NO_MESSAGES, NO_RESPONDERS, TIMED_OUT, PullLine
from pyoco_server.store.queue.job_queue import Delivery, JobQueue

log = structlog.get_logger(__name__)

_GRACE = 2.0
"""Seconds beyond a request's own end after which silence means that the line is dead."""
_REFUSED_PAUSE = 0.2
_PAUSE = 1.0
"""Seconds without a request after which none is wanted: between two of one loop there is less."""
_BEAT = 2.0
"""Seconds between the server's signs of life during a long request."""
_SILENCE = 4.5
"""Seconds without any after which a long request is lost: one that meets its consumer's deletion is never answered."""


class TagPuller:
    """Takes one job at a time from several tags, for one slot.

    With several tags, what waits is asked for in turn, so that none starves; when nothing waits, all tags are
    asked at once, and the first job ends the other requests.
    """

    def __init__(self, queue: JobQueue, tags: list[str]) -> None:
        self._queue = queue
        self._tags = list(tags)
        self._lines: dict[str, PullLine] = {}
        self._arrived: deque[Delivery] = deque()
        self._open: set[str] = set()
        self._heard: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._wanted = False
        self._refused = False
        self._silent = False
        self._missing: set[str] = set(tags)
        self._returns: set[asyncio.Task[None]] = set()
        self.last_round_trip = 0.0
        """Unix time of the last answer from a consumer, be it a job, "nothing there" or a sign of life."""
        self._waiting_since: float | None = None
        self._left_at: float | None = None

    async def next(self, wait: float, *stop: asyncio.Event) -> Delivery | None:
        """Wait for a job.

        Args:
            wait: Seconds after which ``None`` is the answer.
            stop: Any of them, set from outside, ends the wait; whatever arrives later goes back to the queue.

        Raises:
            StoreUnavailable: NATS is away.
        """
        if self.unanswered_since is None:
            self._waiting_since = time.monotonic()
        self._left_at = None
        try:
            delivery = await self._next(wait, stop)
            if not self._refused and not self._silent:
                self._waiting_since = None
            return delivery
        finally:
            self._left_at = time.monotonic()

    @property
    def unanswered_since(self) -> float | None:
        """Monotonic time since when answers are wanted and none has come, or ``None`` while none is wanted."""
        if self._left_at is not None and time.monotonic() - self._left_at > _PAUSE:
            return None  # nobody asks any more
        return self._waiting_since

    async def _next(self, wait: float, stop: tuple[asyncio.Event, ...]) -> Delivery | None:
        if self._refused:  # by a consumer that is gone, or too busy: do not hammer it
            self._refused = False
            await first_event(_REFUSED_PAUSE, *stop)
        await self._ensure_consumers()
        self._wanted = True
        try:
            if len(self._tags) > 1:
                for tag in list(self._tags):
                    self._tags.append(self._tags.pop(0))
                    if await self._ask([tag], None, 1.0, stop) or _any(stop):
                        return self._take()
            await self._ask(self._tags, wait, wait + _GRACE, stop)
            return self._take()
        finally:
            self._wanted = False
            await self._withdraw_open()

    async def close(self) -> None:
        """Take back every request; late jobs go back to the queue."""
        await asyncio.gather(*(line.withdraw() for line in self._lines.values()))
        if self._returns:
            await asyncio.wait(self._returns, timeout=2)

    async def _ensure_consumers(self) -> None:
        for tag in list(self._missing):
            await self._queue.ensure_consumer(tag)
            self._missing.discard(tag)

    async def _ask(self, tags: list[str], expires: float | None, limit: float, stop: tuple[asyncio.Event, ...]) -> bool:
        self._open = set(tags)
        beat = _BEAT if expires is not None and expires >= 2 * _BEAT else None
        for tag in tags:
            await self._line(tag).request(batch=1, expires=expires, beat=beat)
        began = time.monotonic()
        self._heard = dict.fromkeys(tags, began)
        while self._open and not self._arrived and not _any(stop):
            self._wake.clear()
            now = time.monotonic()
            ends = {tag: self._heard[tag] + _SILENCE if beat else began + limit for tag in self._open}
            if silent := {tag for tag, end in ends.items() if end <= now}:
                self._queue.connection.tell(log.warning, "the queue does not answer; asking anew", tags=sorted(silent))
                self._missing |= silent
                self._silent = True
                break
            await first_event(min(ends.values()) - now, self._wake, *stop)
        return bool(self._arrived)

    async def _withdraw_open(self) -> None:
        """End the requests that are still open on the server; one that had its answer costs nothing."""
        lines = [self._lines[tag] for tag in self._open]
        self._open = set()
        if lines:
            await asyncio.gather(*(line.withdraw() for line in lines))

    def _take(self) -> Delivery | None:
        return self._arrived.popleft() if self._arrived else None

    def _line(self, tag: str) -> PullLine:
        if tag not in self._lines:
            settings = self._queue.connection.settings
            self._lines[tag] = PullLine(
                self._queue.connection,
                settings.work_stream,
                self._queue.consumer_name(tag),
                lambda message: self._on_message(tag, message),
                lambda status, text: self._on_end(tag, status, text),
                lambda: self._note_answer(tag),
            )
        return self._lines[tag]

    def _note_answer(self, tag: str) -> None:
        self.last_round_trip = time.time()
        self._heard[tag] = time.monotonic()
        self._silent = False
        if self._waiting_since is not None:
            self._waiting_since = time.monotonic()

    def _on_message(self, tag: str, message: Msg) -> None:
        self._note_answer(tag)
        self._open.discard(tag)
        meta = message.metadata
        delivery = Delivery(
            tag,
            message.data,
            message.subject,
            meta.sequence.stream,
            meta.num_delivered,
            message,
            self._queue.connection,
        )
        if self._wanted and not self._arrived:
            self._arrived.append(delivery)
            self._wake.set()
        else:  # a second tag answered in the same moment
            task = asyncio.create_task(_return(delivery), name="give-back")
            self._returns.add(task)
            task.add_done_callback(self._returns.discard)

    def _on_end(self, tag: str, status: int, text: str) -> None:
        if status in (NO_MESSAGES, TIMED_OUT):
            self._note_answer(tag)
        self._open.discard(tag)
        if status in (NO_RESPONDERS, CONFLICT):
            self._missing.add(tag)
            self._refused = True
        if status not in (NO_MESSAGES, TIMED_OUT):
            self._queue.connection.tell(log.warning, "a pull was refused", tag=tag, status=status, reason=text)
        self._wake.set()


def _any(events: tuple[asyncio.Event, ...]) -> bool:
    return any(event.is_set() for event in events)


async def _return(delivery: Delivery) -> None:
    try:
        await delivery.give_back()
    except StoreUnavailable:
        log.warning("a job could not be given back; it is delivered again after AckWait", tag=delivery.tag)
