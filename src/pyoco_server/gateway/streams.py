"""One watch of one run: fed by the index, never by polling."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from sse_starlette.event import ServerSentEvent

from pyoco_server.errors import RunNotFound, StoreUnavailable
from pyoco_server.gateway.index import Mailbox
from pyoco_server.gateway.routes.runs import read_record, with_worker
from pyoco_server.gateway.state import Gateway
from pyoco_server.model.run import RunStatus
from pyoco_server.model.snapshot import public
from pyoco_server.waiting import first_event

_HEARTBEAT_SEC = 2.0
"""Existing clients give up after five seconds of silence."""
_TERMINAL = {status.value for status in RunStatus if status.is_terminal}


class Watch:
    """Makes the events of one watch.

    Args:
        here: The gateway.
        run_id: The run.
        records: Whether snapshots carry task records.
        since: Snapshots not newer than this (unix seconds) are left out.
        seen_revision: The last event that the client has seen; 0 for none.
        timeout_sec: Seconds after which the stream ends.
    """

    def __init__(
        self, here: Gateway, run_id: str, *, records: bool, since: float | None, seen_revision: int, timeout_sec: float
    ) -> None:
        self._here = here
        self._run_id = run_id
        self._records = records
        self._since = since
        self._revision = seen_revision
        self._deadline = time.monotonic() + timeout_sec
        self._ended = False

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Give the events, the first one at once."""
        with self._here.index.subscribe(self._run_id) as mailbox:
            yield await self._first() or self._heartbeat()
            while not self._ended and not self._here.stopping.is_set():
                left = self._deadline - time.monotonic()
                if left <= 0:
                    return
                await first_event(min(left, _HEARTBEAT_SEC), mailbox.arrived, self._here.stopping)
                event = self._next(mailbox)
                if event is not None:
                    yield event
                elif not self._here.stopping.is_set():
                    yield self._heartbeat()

    async def _first(self) -> ServerSentEvent | None:
        try:
            raw, revision = await read_record(self._here, self._run_id)
        except RunNotFound:
            self._ended = True
            return None
        except StoreUnavailable:
            return None  # heartbeats go on, and the index brings the next snapshot when NATS is back
        return self._snapshot(raw, revision)

    def _next(self, mailbox: Mailbox) -> ServerSentEvent | None:
        latest = mailbox.take()
        if latest is None:
            return None
        raw, revision = latest
        if raw is None:
            self._ended = True  # removed by retention
            return None
        return self._snapshot(raw, revision)

    def _snapshot(self, raw: bytes, revision: int) -> ServerSentEvent | None:
        snapshot = public(raw, records=self._records)
        self._ended = snapshot.get("status") in _TERMINAL
        known = revision <= self._revision and not self._ended
        old = self._since is not None and (snapshot.get("updated_at") or 0.0) <= self._since
        if known or old:
            return None
        self._revision = revision
        data = {"run_id": self._run_id, "snapshot": with_worker(self._here, snapshot), "ts": time.time()}
        return _event("snapshot", data, str(revision))

    def _heartbeat(self) -> ServerSentEvent:
        return _event("heartbeat", {"run_id": self._run_id, "ts": time.time()}, None)


def _event(name: str, data: dict[str, Any], event_id: str | None) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data, separators=(",", ":")), event=name, id=event_id)
