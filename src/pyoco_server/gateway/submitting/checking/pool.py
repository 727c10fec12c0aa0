"""Checker processes, and the queue before them."""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from pyoco_server.errors import CheckUnavailable
from pyoco_server.gateway.submitting.checking.frames import Frame
from pyoco_server.gateway.submitting.checking.process import CheckerProcess

_PROCESSES = 2
_LARGE = 64 * 1024
"""Bytes from which a text waits for the first process: the others stay free for what is done soon."""
_ANSWER_SEC = 8.0
"""Until then a text is checked, or refused: clients give up after 10 s by default."""
_LEFT_ALONE_SEC = 1.0
"""A check that nobody waits for any more may go on so long; a new process would not be there sooner."""
_IDLE_SEC = 30.0


@dataclass(eq=False)
class _Job:
    asked: Frame
    caller: str
    most_bytes: int
    answer: "asyncio.Future[Frame]"
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_large(self) -> bool:
        return len(self.asked.body) > _LARGE


class _Queue:
    """Jobs of several callers, who take turns."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, deque[_Job]] = OrderedDict()

    def add(self, job: _Job) -> None:
        self._callers.setdefault(job.caller, deque()).append(job)

    def take(self) -> _Job | None:
        """Take the next job that somebody still waits for."""
        while self._callers:
            caller, jobs = self._callers.popitem(last=False)
            job = jobs.popleft()
            if jobs:
                self._callers[caller] = jobs
            if not job.abandoned.is_set():
                return job
        return None


class CheckPool:
    """Processes that start with the first text, and end when there was none for a while.

    Args:
        processes: How many at most.
        idle_sec: Seconds without work after which they end.
        answer_sec: Seconds after which a text is given up.
    """

    def __init__(
        self, processes: int = _PROCESSES, *, idle_sec: float = _IDLE_SEC, answer_sec: float = _ANSWER_SEC
    ) -> None:
        self._count = processes
        self._idle_sec = idle_sec
        self._answer_sec = answer_sec
        self._large = _Queue()
        self._small = _Queue()
        self._news = [asyncio.Event() for _ in range(processes)]
        self._processes: list[CheckerProcess] = []
        self._busy = [False] * processes
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """The processes that there are now."""
        return [process.pid for process in self._processes if process.pid is not None]

    async def ask(self, caller: str, asked: Frame, most_bytes: int) -> Frame:
        """Let a process do something. Cancelled, it is given up.

        Args:
            caller: Whose it is.
            asked: What to do.
            most_bytes: Largest answer that is taken.

        Raises:
            PyocoError: what is wrong with the text.
            CheckUnavailable: nobody could find out, or not in time.
        """
        if self._closed:
            raise CheckUnavailable("this server stops")
        job = _Job(asked, caller, most_bytes, asyncio.get_running_loop().create_future())
        (self._large if job.is_large else self._small).add(job)
        if not self._tasks:
            self._processes = [CheckerProcess() for _ in range(self._count)]
            self._tasks = [asyncio.create_task(self._work(n), name=f"checker-{n}") for n in range(self._count)]
        self._tell()
        try:
            await asyncio.wait({job.answer}, timeout=self._answer_sec)
        finally:
            job.abandoned.set()
        if not job.answer.done():
            raise CheckUnavailable(f"this could not be checked within {self._answer_sec:g} s: there is too much to do")
        return job.answer.result()

    async def close(self) -> None:
        """Kill the processes."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while (job := self._large.take() or self._small.take()) is not None:
            _refuse(job, CheckUnavailable("this server stops"))

    async def _work(self, number: int) -> None:
        """Do one job after the other."""
        process, news = self._processes[number], self._news[number]
        try:
            while True:
                news.clear()
                job = self._next(number)
                if job is not None:
                    self._busy[number] = True
                    self._tell()  # the first one may have to help now
                    await self._do(process, job)
                    self._busy[number] = False
                    if process.grown:
                        await process.end()
                    continue
                try:
                    await asyncio.wait_for(news.wait(), self._idle_sec)
                except asyncio.TimeoutError:
                    await process.end()
                    await news.wait()
        finally:
            await process.kill()

    def _next(self, number: int) -> _Job | None:
        """Take what this process is to do: the first one long texts, and short ones only if all others are busy."""
        if number == 0 and (job := self._large.take()) is not None:
            return job
        return self._small.take() if number or all(self._busy[1:]) else None

    def _tell(self) -> None:
        for news in self._news:
            news.set()

    async def _do(self, process: CheckerProcess, job: _Job) -> None:
        working = asyncio.create_task(process.ask(job.asked, job.most_bytes))
        try:
            await asyncio.wait({working}, timeout=_LEFT_ALONE_SEC)
            if not working.done():
                leaving = asyncio.create_task(job.abandoned.wait())
                await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
                leaving.cancel()
        finally:
            working.cancel()  # which kills the process, if it is not done
            await asyncio.wait({working})
            if not working.cancelled() and (error := working.exception()) is not None:
                _refuse(job, error)
            elif working.cancelled():
                _refuse(job, CheckUnavailable("this server stops"))
            elif not job.answer.done():
                job.answer.set_result(working.result())


def _refuse(job: _Job, error: BaseException) -> None:
    if not job.answer.done():
        job.answer.set_exception(error)
        job.answer.exception()  # nobody may be waiting any more
