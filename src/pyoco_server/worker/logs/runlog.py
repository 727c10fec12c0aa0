"""The log of one attempt on its way to NATS: lines come in, chunks go out.

Of a log that is too long the beginning is kept, which is stored the moment it comes, and the end, which waits here
until the run has ended (``LogTail``). The same place holds what NATS does not take in time.
"""

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.runlog import LiveLines, LogChunk, LogLine, LogStream
from pyoco_server.process.waiting import first_event
from pyoco_server.store.logs import LogStore
from pyoco_server.worker.child.output.frames import FORMS, LINE_COST, Form, Frame, Kind
from pyoco_server.worker.logs.liveview import LiveView
from pyoco_server.worker.logs.logtail import LogTail, Printed

log = structlog.get_logger(__name__)

CHUNK_BYTES = 64 * 1024
CHUNK_SEC = 0.25
"""How long a line waits for others to share its chunk."""
BUFFER_BYTES = 4 * 1024 * 1024
"""What waits for NATS at most, for each run; what comes then goes to the tail."""
TAIL_BYTES = 4 * 1024 * 1024
"""The end of a log that is kept at most; of a short limit it is the half."""
_FULL_BYTES = BUFFER_BYTES // 2
_MOST_NOTICES = 200
_RETRY = (0.1, 1.0)


class RunLog:
    """Takes the output of one attempt, bounds it, and publishes it in order.

    Args:
        store: Where chunks go.
        run_id: The run.
        attempt: Which start of it.
        limit: Bytes that are kept.
    """

    def __init__(self, store: LogStore, run_id: str, attempt: int, limit: int) -> None:
        self._store = store
        self._run_id = run_id
        self._attempt = attempt
        self._limit = limit
        for_tail, for_live = min(limit // 2, TAIL_BYTES), limit // 16
        self._head = limit - for_tail - for_live
        self._spent = False
        self._tail = LogTail(for_tail)
        self._live = LiveView(self._tail, for_live, self._show, self._wake)
        self._running: Counter[str] = Counter()
        self._notices = 0
        self._queue: deque[Printed] = deque()
        self._splitting: Iterator[LogLine] = iter(())
        self._cost = 0
        self._came = asyncio.Event()
        self._pressing = asyncio.Event()
        self._ending = False
        self._publishing: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether it had better get nothing more for now."""
        return self._cost + self._tail.cost >= _FULL_BYTES and not self._spent

    @property
    def is_spent(self) -> bool:
        """Whether lines go to the tail, so that most of them may never be looked at."""
        return self._spent or bool(self._tail)

    def running_task(self) -> str | None:
        """Return the task that runs, if it is exactly one."""
        return next(iter(self._running)) if len(self._running) == 1 else None

    def take_frame(self, frame: Frame) -> None:
        """Take what the child's Python code printed, or what the child tells about it."""
        if frame.kind in FORMS:
            stream, form = FORMS[frame.kind]
            printed = Printed(frame.time, frame.task, stream, frame.text, continued=form is Form.PIECE)
            self.take(printed, form, frame.key)
        elif frame.kind is Kind.TASK_STARTED:
            self._running[frame.task or ""] += 1
        elif frame.kind is Kind.TASK_ENDED:
            self._running -= Counter([frame.task or ""])
        elif frame.kind is Kind.NOTICE:
            self._note(frame.text.decode("utf-8", "replace"))
        else:
            self._take_loss(frame)

    def take(self, printed: Printed, form: Form, key: bytes = b"") -> None:
        """Take lines, a part of one, or the state of one that is not finished.

        Args:
            printed: The text.
            form: What it is.
            key: Which unfinished line it replaces; empty for none.
        """
        if form is Form.STATE:
            if (oldest := self._live.set(key, printed)) is not None:
                self._take(oldest)
        else:
            self._live.end(key)
            self._take(printed)

    async def finish(self, timeout: float) -> bool:
        """Publish what has come so far, ``timeout`` seconds at most; whether all of it is there is the answer."""
        if not self._ending:
            for unfinished in self._live.finish():
                self._take(unfinished)
            self._ending = True
            if self._queue or self._tail or self._live.is_seen:
                self._begin()
        self._came.set()
        self._pressing.set()
        if self._publishing is None:
            return True
        done, _ = await asyncio.wait({self._publishing}, timeout=timeout)
        if done and not self._publishing.cancelled() and (error := self._publishing.exception()) is not None:
            # Of a log that cannot be stored the run's own end must not suffer.
            log.error("a run's log could not be stored", run_id=self._run_id, reason=repr(error))
        return bool(done)

    async def close(self, timeout: float) -> None:
        """As ``finish``, and give up what cannot be published."""
        if not await self.finish(timeout) and self._publishing is not None:
            log.warning("the last lines of a run's log are lost: NATS did not take them", run_id=self._run_id,
                        lines=sum(printed.lines for printed in self._queue) + self._tail.lines)  # fmt: skip
            self._publishing.cancel()

    def _take(self, printed: Printed) -> None:
        if not self.is_spent and printed.cost > self._head:
            self._spend()
        if self.is_spent or self._cost >= BUFFER_BYTES:
            self._tail.add(printed)
            if self._spent:
                self._live.note()
            else:
                self._came.set()
        else:
            self._head -= printed.cost
            self._append(printed)

    def _spend(self) -> None:
        """The beginning is complete."""
        self._spent = True
        self._live.notice = (
            f"lines are left out here, for this log is long (PYOCO_RUN_LOG_MAX_BYTES is {self._limit}); "
            "these are the last ones"
        )

    def _take_loss(self, frame: Frame) -> None:
        try:
            lines, size = (max(0, int(word)) for word in frame.text.split())
        except ValueError:
            return  # not from us
        self._note(f"{_amount(lines, size)} cut here: the worker did not read them in time")

    def _note(self, text: str) -> None:
        # User code may write frames too; it cannot fill the log with them.
        self._notices += 1
        if self._notices > _MOST_NOTICES:
            return
        if self.is_spent:
            self._tail.add(_notice(text))
        else:
            self._append(_notice(text))

    def _append(self, printed: Printed) -> None:
        self._queue.append(printed)
        self._cost += printed.cost
        if self._cost >= CHUNK_BYTES:
            self._pressing.set()
        self._begin()

    def _wake(self) -> None:
        self._pressing.set()
        self._begin()

    def _begin(self) -> None:
        self._came.set()
        if self._publishing is None:
            self._publishing = asyncio.create_task(self._publish(), name="run-log")

    async def _publish(self) -> None:
        """Publish chunk by chunk until the run has ended and nothing is left."""
        origin = uuid.uuid4().hex[:12]  # an attempt that was handed back has its number again
        number = 0
        while True:
            await self._came.wait()
            await first_event(CHUNK_SEC, self._pressing)
            ending = self._ending
            lines = self._next_lines()
            live = self._live.for_chunk(last=ending)
            if lines or live is not None:
                number += 1
                await self._store_patiently(LogChunk(self._attempt, number, lines, live), f"{origin}.{number}")
            elif ending:
                return

    def _next_lines(self) -> list[LogLine]:
        lines: list[LogLine] = []
        size = 0
        while size < CHUNK_BYTES:
            line = self._next_line()
            if line is None:
                if not self._ending:
                    self._came.clear()
                    self._pressing.clear()
                break
            lines.append(line)
            size += len(line.text) + LINE_COST
        return lines

    def _next_line(self) -> LogLine | None:
        while (line := next(self._splitting, None)) is None:
            if self._queue:
                printed = self._queue.popleft()
                self._cost -= printed.cost
            elif (held := self._from_tail()) is not None:
                printed = held
            else:
                return None
            self._splitting = printed.split()
        return line

    def _from_tail(self) -> Printed | None:
        """Take what was held back, if it may go now: the run has ended, or only NATS was too slow for a while."""
        first = self._tail.first()
        if not self._ending and first is not None and first.cost > self._head:
            self._spend()
        if not self._ending and self._spent:
            return None
        if self._tail.cut_lines:
            why = f"this log has reached its limit of {self._limit} bytes (PYOCO_RUN_LOG_MAX_BYTES)"
            if not self._spent:
                why = "NATS took no more of them for too long"
            return _notice(f"{_amount(*self._tail.take_counts())} cut here: {why}")
        if first is not None:
            self._head -= first.cost
        return self._tail.pop()

    async def _show(self, live: LiveLines) -> None:
        await self._store.show(self._run_id, LogChunk(self._attempt, 0, [], live))

    async def _store_patiently(self, chunk: LogChunk, message_id: str) -> None:
        pause, longest = _RETRY
        while True:
            try:
                await self._store.publish(self._run_id, chunk, message_id)
            except StoreUnavailable as error:
                log.info("a run's log waits for NATS", run_id=self._run_id, reason=error.message)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                return


class NoRunLog:
    """Takes what a child prints while it has no run: its resolver, most likely. It goes to the worker's own log."""

    is_full = False
    _MOST_LINES = 1000

    def __init__(self) -> None:
        self._lines = 0

    @property
    def is_spent(self) -> bool:
        """Whether lines are only counted from now on."""
        return self._lines > self._MOST_LINES

    def running_task(self) -> str | None:
        """There is none."""
        return None

    def take_frame(self, frame: Frame) -> None:
        """Take a frame."""
        if frame.kind in FORMS:
            stream, form = FORMS[frame.kind]
            self.take(Printed(frame.time, None, stream, frame.text), form)

    def take(self, printed: Printed, form: Form, key: bytes = b"") -> None:
        """Take lines; of one that is not finished nothing is told."""
        if form is Form.STATE:
            return
        self._lines += printed.lines
        if self._lines <= self._MOST_LINES:
            log.info(printed.text.decode("utf-8", "replace"), stream=printed.stream.value, source="flow resolver")
        elif self._lines - printed.lines <= self._MOST_LINES:
            log.warning("what the flow resolver prints is no longer logged", lines=self._MOST_LINES)


def _notice(text: str) -> Printed:
    return Printed(time.time(), None, LogStream.NOTICE, text.encode())


def _amount(lines: int, size: int) -> str:
    return f"{lines} lines with {size} bytes"
