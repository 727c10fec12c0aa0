"""The log of one attempt on its way to NATS: lines come in, chunks go out."""

import asyncio
import time
import uuid
from collections import Counter, deque

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.runlog import LogChunk, LogLine, LogStream
from pyoco_server.store.logs import LogStore
from pyoco_server.waiting import first_event
from pyoco_server.worker.allowance import Allowance
from pyoco_server.worker.child.frames import LINE_COST, STREAMS, Frame, Kind

log = structlog.get_logger(__name__)

CHUNK_BYTES = 64 * 1024
CHUNK_SEC = 0.25
"""How long a line waits for others to share its chunk."""
BUFFER_BYTES = 4 * 1024 * 1024
"""What waits for NATS at most, for each run."""
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
        self._allowance = Allowance(limit)
        self._cut_told = False
        self._notices = 0
        self._running: Counter[str] = Counter()
        self._lines: deque[tuple[LogLine, int]] = deque()
        self._bytes = 0
        self._overflow = Allowance(0)
        self._came = asyncio.Event()
        self._pressing = asyncio.Event()
        self._ending = False
        self._publishing: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether it had better get nothing more for now."""
        return self._bytes >= _FULL_BYTES

    @property
    def is_spent(self) -> bool:
        """Whether the limit is reached, so that lines are only counted."""
        return self._allowance.is_spent

    def running_task(self) -> str | None:
        """Give the task that runs, if it is exactly one."""
        return next(iter(self._running)) if len(self._running) == 1 else None

    def take_frame(self, frame: Frame) -> None:
        """Take what the child's Python code printed, or what the child tells about it."""
        if frame.kind in STREAMS:
            stream, continued = STREAMS[frame.kind]
            text = frame.text
            self._take(LogLine(frame.time, frame.task, stream, text.decode("utf-8", "replace"), continued), len(text))
        elif frame.kind is Kind.TASK_STARTED:
            self._running[frame.task or ""] += 1
        elif frame.kind is Kind.TASK_ENDED:
            self._running -= Counter([frame.task or ""])
        elif frame.kind is Kind.NOTICE:
            self._notice(frame.text.decode("utf-8", "replace"))
        else:
            self._take_counts(frame)

    def take_raw(self, stream: LogStream, text: bytes, task: str | None, *, continued: bool) -> None:
        """Take a line that C code or a subprocess printed."""
        self._take(LogLine(time.time(), task, stream, text.decode("utf-8", "replace"), continued), len(text))

    def skip_raw(self, lines: int, size: int) -> None:
        """Count what is not taken."""
        self._allowance.cut(lines, size)

    async def finish(self, timeout: float) -> bool:
        """Publish what has come so far, ``timeout`` seconds at most; whether all of it is there is the answer."""
        if not self._ending:
            self._ending = True
            self._tell_cut_total()
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
                        lines=len(self._lines))  # fmt: skip
            self._publishing.cancel()

    def _take(self, line: LogLine, size: int) -> None:
        if not self._allowance.take(size):
            self._tell_cut()
        elif self._bytes >= BUFFER_BYTES:
            self._overflow.cut(1, size)
        else:
            self._append(line, size)

    def _take_counts(self, frame: Frame) -> None:
        try:
            lines, size = (max(0, int(word)) for word in frame.text.split())
        except ValueError:
            return  # not from us
        if frame.kind is Kind.CUT:
            self._allowance.cut(lines, size)
            self._tell_cut()
        else:
            self._notice(f"{_amount(lines, size)} cut here: the worker did not read them in time")

    def _tell_cut(self) -> None:
        if not self._cut_told:
            self._cut_told = True
            self._notice(f"cut here: this log has reached its limit of {self._limit} bytes (PYOCO_RUN_LOG_MAX_BYTES)")

    def _tell_cut_total(self) -> None:
        if self._cut_told:
            self._notice(f"{_amount(*self._allowance.take_counts())} cut in all")

    def _tell_overflow(self) -> None:
        if self._overflow.cut_lines:
            amount = _amount(*self._overflow.take_counts())
            self._notice(f"{amount} cut here: NATS took no more of them for too long")

    def _notice(self, text: str) -> None:
        # User code may write frames too; it cannot fill the log with them.
        self._notices += 1
        if self._notices <= _MOST_NOTICES or self._ending:
            self._append(LogLine(time.time(), None, LogStream.NOTICE, text), len(text))

    def _append(self, line: LogLine, size: int) -> None:
        if line.stream is not LogStream.NOTICE:
            self._tell_overflow()
        self._lines.append((line, size))
        self._bytes += size + LINE_COST
        self._came.set()
        if self._bytes >= CHUNK_BYTES:
            self._pressing.set()
        if self._publishing is None:
            self._publishing = asyncio.create_task(self._publish(), name="run-log")

    async def _publish(self) -> None:
        """Publish chunk by chunk until the run has ended and nothing is left."""
        origin = uuid.uuid4().hex[:12]  # an attempt that was handed back has its number again
        number = 0
        while True:
            await self._came.wait()
            await first_event(CHUNK_SEC, self._pressing)
            lines = self._next_lines()
            if lines:
                number += 1
                await self._store_patiently(LogChunk(self._attempt, number, lines), f"{origin}.{number}")
            elif self._ending:
                return

    def _next_lines(self) -> list[LogLine]:
        lines = []
        size = 0
        while self._lines and size < CHUNK_BYTES:
            line, cost = self._lines.popleft()
            lines.append(line)
            size += cost + LINE_COST
        self._bytes -= size
        if not self._lines:
            self._tell_overflow()
        if not self._lines and not self._ending:
            self._came.clear()
        if self._bytes < CHUNK_BYTES and not self._ending:
            self._pressing.clear()
        return lines

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

    def skip_raw(self, lines: int, size: int) -> None:
        """Count what is not taken."""
        self._lines += lines

    def take_frame(self, frame: Frame) -> None:
        """Take a frame."""
        if frame.kind in STREAMS:
            self.take_raw(STREAMS[frame.kind][0], frame.text, None, continued=False)

    def take_raw(self, stream: LogStream, text: bytes, task: str | None, *, continued: bool) -> None:
        """Take a line."""
        self._lines += 1
        if self._lines <= self._MOST_LINES:
            log.info(text.decode("utf-8", "replace"), stream=stream.value, source="flow resolver")
        elif self._lines == self._MOST_LINES + 1:
            log.warning("what the flow resolver prints is no longer logged", lines=self._MOST_LINES)


def _amount(lines: int, size: int) -> str:
    return f"{lines} lines with {size} bytes"
