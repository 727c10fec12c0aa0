"""One watch of one run: fed by the index, never by polling."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pydantic_core
from sse_starlette.event import ServerSentEvent

from pyoco_server.errors import RunNotFound, StoreUnavailable
from pyoco_server.gateway.gateway import Gateway
from pyoco_server.gateway.index.json_fields import number, readable
from pyoco_server.gateway.index.run_index import Mailbox
from pyoco_server.gateway.routes.runs import read_record, with_worker
from pyoco_server.model.access import Caller
from pyoco_server.model.run import ENDED
from pyoco_server.model.text.oneline import one_line
from pyoco_server.process.waiting import first_event

_HEARTBEAT_SEC = 2.0
"""Existing clients give up after five seconds of silence."""
_READ_SEC = 0.5
"""How long a heartbeat may wait for a read of the record."""


class Watch:
    """Makes the events of one watch.

    Args:
        here: The gateway.
        who: Who watches.
        run_id: The run.
        records: Whether snapshots carry task records.
        since: Snapshots not newer than this (unix seconds) are left out.
        seen_revision: The last event that the client has seen; 0 for none.
        timeout_sec: Seconds after which the stream ends.
    """

    def __init__(
        self,
        here: Gateway,
        who: Caller,
        run_id: str,
        *,
        records: bool,
        since: float | None,
        seen_revision: int,
        timeout_sec: float,
    ) -> None:
        self._here = here
        self._who = who
        self._run_id = run_id
        self._records = records
        self._since = since
        self._seen = seen_revision
        self._revision = 0
        self._deadline = time.monotonic() + timeout_sec
        self._ended = False
        self._must_read = True
        self._reading: asyncio.Task[tuple[bytes, int]] | None = None

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """Give the events, the first one at once."""
        with self._here.index.subscribe(self._run_id) as mailbox:
            try:
                yield await self._read() or self._heartbeat()
                while not self._ended and not self._here.stopping.is_set():
                    left = self._deadline - time.monotonic()
                    if left <= 0:
                        return
                    await first_event(min(left, _HEARTBEAT_SEC), mailbox.arrived, self._here.stopping)
                    event = await self._next(mailbox)
                    if event is not None or not self._here.stopping.is_set():
                        yield event or self._heartbeat()
            finally:
                if self._reading is not None:
                    self._reading.cancel()

    async def _next(self, mailbox: Mailbox) -> ServerSentEvent | None:
        latest = mailbox.take()
        if latest is not None:
            raw, revision = latest
            if raw is not None:
                return self._snapshot(raw, revision)
            # Removed, or the whole bucket was made anew: the record itself tells.
            self._revision, self._must_read = 0, True
        return await self._read() if self._must_read else None

    async def _read(self) -> ServerSentEvent | None:
        """Read the record; heartbeats go on while NATS does not answer, and the next round reads on."""
        if self._reading is None:
            self._reading = asyncio.create_task(read_record(self._here, self._run_id), name="watch-read")
        await asyncio.wait({self._reading}, timeout=_READ_SEC)
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        try:
            raw, revision = reading.result()
        except RunNotFound:
            self._ended = True
            return None
        except StoreUnavailable:
            return None
        self._must_read = False
        return self._snapshot(raw, revision)

    def _snapshot(self, raw: bytes, revision: int) -> ServerSentEvent | None:
        if revision <= self._revision:
            return None
        self._revision = revision
        snapshot = readable(
            self._run_id, raw, who=self._who, records=self._records, last_known=self._here.index.last_known
        )
        if snapshot is None:  # asked anew, the answer is 404
            self._ended = True
            return None
        self._ended = snapshot.get("status") in ENDED
        old = self._since is not None and number(snapshot.get("updated_at")) <= self._since
        if old or revision == self._seen:
            return None
        data = {"run_id": self._run_id, "snapshot": with_worker(self._here, snapshot), "ts": time.time()}
        return _event("snapshot", data, str(revision))

    def _heartbeat(self) -> ServerSentEvent:
        return _event("heartbeat", {"run_id": self._run_id, "ts": time.time()}, None)


def _event(name: str, data: dict[str, Any], event_id: str | None) -> ServerSentEvent:
    return ServerSentEvent(one_line(pydantic_core.to_json(data).decode()), event=name, id=event_id, sep="\n")
