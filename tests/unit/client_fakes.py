"""A server and a clock for tests of the client, without a network and without waiting."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from pyoco_server.model.level import HEADER, LEVEL

SSE = {"content-type": "text/event-stream"}
RUN = {"run_id": "r1", "status": "RUNNING", "flow_name": "main", "tag": "cpu", "updated_at": 1.5}
Answer = Callable[[httpx2.Request], httpx2.Response]


class Stream(httpx2.SyncByteStream):
    """A stream of events; an exception among them breaks the connection there."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, Exception):
                raise part
            yield part.encode()


def of_ours(response: httpx2.Response) -> httpx2.Response:
    """Make an answer one of a server that says how much of the interface it has."""
    response.headers.setdefault(HEADER, str(LEVEL))
    return response


class Server:
    """Answers from a script of watches, the last one again and again, and from ``answer`` for everything else."""

    def __init__(self) -> None:
        self.seen: list[httpx2.Request] = []
        self.watches: list[tuple[Any, ...] | httpx2.Response | Exception] = []
        self.answer: Answer = lambda _: httpx2.Response(200, json=RUN)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/health":  # a client looks whether the server understands all of a call
            return of_ours(httpx2.Response(200, json={"status": "ok"}))
        request.read()
        self.seen.append(request)
        if not request.url.path.endswith("/watch"):
            return of_ours(self.answer(request))
        script = self.watches.pop(0) if len(self.watches) > 1 else self.watches[0]
        if isinstance(script, Exception):
            raise script
        return of_ours(
            script if isinstance(script, httpx2.Response) else httpx2.Response(200, headers=SSE, stream=Stream(script))
        )

    def watched(self) -> list[httpx2.Request]:
        return [request for request in self.seen if request.url.path.endswith("/watch")]


class Clock:
    """Time that passes in sleep, and a little with each look."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        self.now += 0.25
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def fake_server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """Give a server that every client made from now on speaks to."""
    server = Server()
    transport = httpx2.MockTransport(server)
    monkeypatch.setattr(httpx2, "Client", functools.partial(httpx2.Client, transport=transport))
    for name in ("PYOCO_SERVER", "PYOCO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return server


def snapshot(status: str, event_id: int = 1) -> str:
    data = json.dumps({"run_id": "r1", "snapshot": {**RUN, "status": status}, "ts": 2.5})
    return f"id: {event_id}\nevent: snapshot\ndata: {data}\n\n"


HEARTBEAT = 'event: heartbeat\ndata: {"run_id": "r1", "ts": 3.5}\n\n'
AWAY = httpx2.ConnectError("refused")
