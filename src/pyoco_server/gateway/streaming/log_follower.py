"""Following a run's log: woken by the chunks themselves, fed by what is stored."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

import pydantic_core
from sse_starlette.event import ServerSentEvent

from pyoco_server.errors import RunNotFound, StoreUnavailable
from pyoco_server.gateway.gateway import Gateway
from pyoco_server.gateway.index.json_fields import readable
from pyoco_server.gateway.index.run_index import Mailbox
from pyoco_server.gateway.routes.runs import read_record
from pyoco_server.gateway.streaming.log_reader import Lines, LogReader
from pyoco_server.model.access import Caller
from pyoco_server.model.run import ENDED
from pyoco_server.model.runlog import LogChunk
from pyoco_server.model.text.oneline import one_line
from pyoco_server.process.waiting import first_event

_HEARTBEAT_SEC = 2.0
_LOOK_SEC = 1.0
"""How long a line may go unnoticed when its chunk's own message was lost."""
_SOON_SEC = 0.02
_EXPECT_SEC = 0.3
"""How long a chunk that was heard of may take until it can be read."""
_READ_SEC = 0.5


class LogFollower:
    """Makes the events of one follower.

    Args:
        here: The gateway.
        who: Who follows.
        run_id: The run.
        reader: Where to begin, and what is wanted.
        tail: Begin with so many of the last lines instead.
    """

    def __init__(self, here: Gateway, who: Caller, run_id: str, reader: LogReader, tail: int | None) -> None:
        self._here = here
        self._who = who
        self._run_id = run_id
        self._reader = reader
        self._tail = tail
        self._status: str | None = None
        self._over = False
        self._must_look = True
        self._came = asyncio.Event()
        self._shown = asyncio.Event()
        self._live: Lines = []
        self._expect_until = 0.0
        self._reading: asyncio.Task[Lines | None] | None = None
        self._last_event = time.monotonic()

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """Return the events until the run has ended and its last line was given."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._cancel_reading)
            mailbox = stack.enter_context(self._here.index.subscribe(self._run_id))
            listening, begun = False, -1
            while not self._here.stopping.is_set():
                if not listening:
                    with contextlib.suppress(StoreUnavailable):
                        await stack.enter_async_context(self._listen())
                        listening = True
                await self._look(mailbox)
                over = self._over  # known before the read, so that what the read does not find will not come
                answered, lines = await self._read()
                if lines is not None:
                    if lines or begun != self._reader.position:  # also without a line: its id tells where to go on
                        begun = self._reader.position
                        yield self._event("log", {"lines": lines, **self._news()}, str(self._reader.position))
                    continue
                if over and answered:
                    if left := self._reader.take_left():  # its worker was lost
                        yield self._event("log", {"lines": left, **self._news()}, None)
                    yield self._event("end", {"status": self._status}, str(self._reader.position))
                    return
                if news := self._news():
                    yield self._event("live", news, None)
                elif time.monotonic() - self._last_event >= _HEARTBEAT_SEC:
                    yield self._event("heartbeat", {}, None)
                await self._wait(mailbox)

    def _listen(self) -> contextlib.AbstractAsyncContextManager[None]:
        def note(chunk: LogChunk) -> None:
            if chunk.live is not None:
                self._reader.note(chunk.attempt, chunk.live)
                self._shown.set()

        return self._here.logs.listen(self._run_id, self._came.set, note)

    def _news(self) -> dict[str, Lines]:
        """Return what is to be seen behind the lines, if that has changed."""
        self._shown.clear()
        if self._reader.live == self._live:
            return {}
        self._live = self._reader.live
        return {"live": self._live}

    async def _wait(self, mailbox: Mailbox) -> None:
        now = time.monotonic()
        if self._came.is_set():
            self._came.clear()
            self._expect_until = now + _EXPECT_SEC
        soon = now < self._expect_until or self._reading is not None
        quiet = max(0.0, self._last_event + _HEARTBEAT_SEC - now)
        await first_event(
            min(_SOON_SEC if soon else _LOOK_SEC, quiet),
            self._came,
            self._shown,
            mailbox.arrived,
            self._here.stopping,
        )

    async def _look(self, mailbox: Mailbox) -> None:
        """Learn whether the run has ended."""
        latest = mailbox.take()
        if latest is not None and latest[0] is not None:
            self._note(latest[0])
        elif latest is not None:
            self._must_look = True
        if self._must_look:
            try:
                raw, _ = await asyncio.wait_for(read_record(self._here, self._run_id), _READ_SEC)
            except RunNotFound:
                self._over, self._status = True, None
            except (StoreUnavailable, asyncio.TimeoutError):
                return
            else:
                self._note(raw)
            self._must_look = False

    def _note(self, raw: bytes) -> None:
        snapshot = readable(self._run_id, raw, who=self._who, records=False, last_known=self._here.index.last_known)
        self._status = snapshot.get("status") if snapshot else None
        self._over = snapshot is None or self._status in ENDED  # asked anew, the answer is 404

    async def _read(self) -> tuple[bool, Lines | None]:
        """Read on; whether NATS answered, and what. Heartbeats go on while it does not."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_on(), name="log-read")
        await asyncio.wait({self._reading}, timeout=_READ_SEC)
        if not self._reading.done():
            return False, None
        reading, self._reading = self._reading, None
        try:
            lines = reading.result()
        except StoreUnavailable:
            return False, None
        self._tail = None
        return True, lines

    async def _read_on(self) -> Lines | None:
        return await (self._reader.next() if self._tail is None else self._reader.tail(self._tail))

    def _cancel_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    def _event(self, name: str, data: dict[str, Any], event_id: str | None) -> ServerSentEvent:
        self._last_event = time.monotonic()
        body = pydantic_core.to_json({"run_id": self._run_id, **data, "ts": time.time()}).decode()
        return ServerSentEvent(one_line(body), event=name, id=event_id, sep="\n")
