"""A template of a slot, with the processes that it has forked in advance."""

import time
from collections import deque

import structlog

from pyoco_server.errors import CommandFailed
from pyoco_server.worker.child.process import ChildProcess, Template

log = structlog.get_logger(__name__)

_BUSY_SEC = 0.1
_IDLE_SEC = 30.0
"""After so long without a run one process in advance is enough."""


class Warm:
    """A template that has started, and its spares."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._spares: deque[ChildProcess] = deque()
        self._ended_at = float("-inf")
        self._used_at = time.monotonic()

    @property
    def first(self) -> ChildProcess:
        """The process that ``take`` takes, after ``spare`` has seen to it."""
        return self._spares[0]

    async def spare(self) -> None:
        """See to it that a fresh process is there.

        Raises:
            NotForked: there is none.
            OSError: there are no descriptors left to talk to one.
        """
        while self._spares and not self._spares[0].is_alive:
            await self._spares.popleft().end()
        if not self._spares:
            self._spares.append(self.template.fork())
        try:
            await self.first.born()
        except CommandFailed:
            self._spares.popleft()
            raise

    def take(self) -> ChildProcess:
        """Take the first process."""
        return self._spares.popleft()

    def fork_ahead(self) -> None:
        """Fork fresh processes after a run: where runs follow each other two, for one may not be ready yet."""
        now = time.monotonic()
        wanted = 2 if now - self._ended_at < _BUSY_SEC else 1
        self._ended_at = self._used_at = now
        while len(self._spares) < wanted and self.template.is_alive:
            try:
                self._spares.append(self.template.fork())
            except OSError as error:
                log.warning("no process could be forked in advance", reason=str(error))  # the next run asks again
                return

    def idle_for(self) -> float:
        """Return the seconds since the last run ended, or since the template started."""
        return time.monotonic() - self._used_at

    async def rest(self) -> None:
        """Let go of a second spare that nobody has needed for a while."""
        if len(self._spares) > 1 and self.idle_for() > _IDLE_SEC:
            await self._spares.pop().end()

    async def end(self) -> None:
        """End every process."""
        while self._spares:
            await self._spares.popleft().end()
        await self.template.end()
