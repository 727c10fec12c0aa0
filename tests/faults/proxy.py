"""A TCP proxy in a thread of its own that delays, swallows and cuts what goes through it."""

import asyncio
import contextlib
from collections.abc import Iterator

from anyio.from_thread import start_blocking_portal

_CHUNK = 64 * 1024


class Proxy:
    """Stands in front of a server.

    Args:
        port: The server's port, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self.delay = 0.0
        """Seconds by which every chunk is late, in each direction."""
        self.refuse = False
        """Whether new connections are closed at once."""
        self.port = 0

    @contextlib.contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Serve on a free port for as long as the block lasts."""
        with start_blocking_portal("asyncio") as self._portal:
            self._portal.call(self._start)
            try:
                yield self
            finally:
                self._portal.call(self._stop)

    @property
    def url(self) -> str:
        """Where a NATS client connects."""
        return f"nats://127.0.0.1:{self.port}"

    def swallow(self) -> None:
        """Be a black hole: connections stay open, are even accepted, and nothing comes through."""
        self._portal.call(self._open.clear)

    def heal(self) -> None:
        """Let everything through again, what was held back first."""
        self.delay, self.refuse = 0.0, False
        self._portal.call(self._open.set)

    def cut(self) -> None:
        """Break every connection; new ones are served."""
        self._portal.call(self._break)

    async def _start(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._break()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _break(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.close()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, back), (there, writer)):
            self._writers.add(sink)
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        # Chunks wait in a queue for their time, so that a delay makes them late and not few.
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

        async def send() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._open.wait()
                if not data:
                    return
                sink.write(data)
                await sink.drain()

        sending = asyncio.create_task(send())
        try:
            data = b"?"
            while data and not sending.done():
                data = await source.read(_CHUNK)
                await waiting.put((loop.time() + self.delay, data))
            await sending
        except OSError:
            pass  # cut by one of its ends, or by us
        finally:
            sending.cancel()
            self._writers.discard(sink)
            sink.close()
