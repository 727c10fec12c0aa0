"""A TCP balancer in a thread of its own, as haproxy or nginx is one: it knows who is well, and no HTTP beyond that."""

import asyncio
import contextlib
from collections.abc import Iterator

from anyio.from_thread import start_blocking_portal

_CHUNK = 64 * 1024
_CHECK_EVERY = 1.0
_CHECK_TIMEOUT = 1.0
_FALL = 3
"""Failed checks after which a backend gets no connections, and loses those it has."""
_CONNECT_TIMEOUT = 1.0


class Backend:
    """One of the servers behind it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.failed = 0
        self.sessions: set[asyncio.StreamWriter] = set()

    @property
    def is_well(self) -> bool:
        """Whether it gets connections."""
        return self.failed < _FALL


class Balancer:
    """Gives each connection to the backend whose turn it is.

    Args:
        host: Address to listen on.
        backends: Host and port of each.
    """

    def __init__(self, host: str, backends: list[tuple[str, int]]) -> None:
        self._host = host
        self._backends = [Backend(*backend) for backend in backends]
        self._checks: list[asyncio.Task[None]] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._turn = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://{self._host}:{self.port}"

    def knows_well(self, host: str) -> bool:
        """Tell whether a backend gets connections now."""
        return next(backend.is_well for backend in self._backends if backend.host == host)

    @contextlib.contextmanager
    def running(self) -> Iterator["Balancer"]:
        """Serve on a free port for as long as the block lasts."""
        with start_blocking_portal("asyncio") as portal:
            portal.call(self._start)
            try:
                yield self
            finally:
                portal.call(self._stop)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        for backend in self._backends:
            self._checks.append(asyncio.create_task(self._check(backend)))

    async def _stop(self) -> None:
        self._server.close()
        for session in [session for backend in self._backends for session in backend.sessions]:
            session.transport.abort()
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        if self._serving:
            await asyncio.wait(self._serving, timeout=5)

    async def _check(self, backend: Backend) -> None:
        while True:
            backend.failed = 0 if await self._answers(backend) else backend.failed + 1
            if not backend.is_well:
                for session in list(backend.sessions):
                    session.transport.abort()  # its clients need not find out by themselves
            await asyncio.sleep(_CHECK_EVERY)

    async def _answers(self, backend: Backend) -> bool:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(backend.host, backend.port), _CHECK_TIMEOUT)
            try:
                writer.write(b"GET /health HTTP/1.1\r\nHost: check\r\nConnection: close\r\n\r\n")
                line = await asyncio.wait_for(reader.readline(), _CHECK_TIMEOUT)
                return b" 200 " in line
            finally:
                writer.transport.abort()
        except (OSError, asyncio.TimeoutError):
            return False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        found = await self._connect()
        if found is None:
            writer.transport.abort()
            return
        backend, source, sink = found
        backend.sessions |= {writer, sink}
        try:
            pumps = [asyncio.create_task(_pump(reader, sink)), asyncio.create_task(_pump(source, writer))]
            await asyncio.wait(pumps)
        finally:
            for one in (writer, sink):
                backend.sessions.discard(one)
                one.transport.abort()

    async def _connect(self) -> tuple[Backend, asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._backends:
            self._turn += 1
            backend = self._backends[self._turn % len(self._backends)]
            if backend.is_well:
                with contextlib.suppress(OSError, asyncio.TimeoutError):
                    connecting = asyncio.open_connection(backend.host, backend.port)
                    return backend, *await asyncio.wait_for(connecting, _CONNECT_TIMEOUT)
        return None


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
