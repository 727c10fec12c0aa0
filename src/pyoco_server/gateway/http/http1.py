"""HTTP/1.1, spoken also with those who offer another protocol, and with a deadline wherever a client may stand still.

``curl --http2`` and Java's client offer HTTP/2 with their first request (``Upgrade: h2c``), and go on in HTTP/1.1 where
the answer does not take the offer up, as RFC 9110 has it. uvicorn's parser stops at the end of such a request's head,
and loses its body. The gateway speaks nothing but HTTP/1.1, so here every offer is read over, websockets among them.

uvicorn waits for ever for a client that sends half a request, or does not read its answer. Here each connection is in a
table (``gateway/http/connections.py``), which looks at it once a second and ends it when its deadline has passed.

A uvicorn of one's own takes it by ``--http pyoco_server.gateway.http.http1:Http1Protocol --ws none``.
"""

import asyncio
import json
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pyoco_server.gateway.http.connections import Deadlines, Why, address_of, table_of

if TYPE_CHECKING:
    from array import array

    from uvicorn._types import ASGI3Application

_CONNECT = b"CONNECT"
_OFFER = b"upgrade"
_LONGEST_HEAD = 64 * 1024
_MOST_PIPELINED = 8
"""Requests that may wait behind one that is being answered; each takes memory."""


class _Phase(Enum):
    NEW = "nothing has come"
    IDLE = "everything is answered"
    HEAD = "a head is coming"
    BODY = "a body is coming"
    BUSY = "it is the server's turn"


class _TooMany(Exception):
    """More requests wait behind one than may."""


class Http1Protocol(HttpToolsProtocol):
    """uvicorn's protocol, where the offer of another protocol changes nothing, and no client is waited for for ever."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parser = _Parser(self)
        # As uvicorn sets it: a request after one that closes the connection does not spoil the answer to that one.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._offered = False
        self._table = table_of(self.app_state)
        self.address = ""
        self._phase = _Phase.NEW
        self._in_head = False
        self._deaf = False
        self._running: RequestResponseCycle | None = None
        self._since = 0.0
        """When the phase began; 0 until somebody looks, so that no request has to ask for the time."""
        self._received = 0
        self._loose = 0
        """Bytes that came and were neither a body nor the end of a head."""
        self._unsent = 0
        self._unsent_since = 0.0
        self._drained = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there is no room."""
        super().connection_made(transport)
        self.address = address_of(self.client[0]) if self.client else ""
        if not self._table.enter(self):
            self._refuse(503, "too_many_connections", "too many connections are open", "Try again in a moment.")

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and let the request that is being answered know, also where others wait behind it."""
        self._table.leave(self)
        super().connection_lost(exc)
        _disconnect(self._running)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        if self._deaf:
            return
        self._received += len(data)
        self._loose += len(data)
        super().data_received(data)
        if self._loose > _LONGEST_HEAD:
            self._refuse(431, "head_too_large", f"the head of a request, or what follows its body, has more than "
                         f"{_LONGEST_HEAD} bytes", "Send large data in the body.")  # fmt: skip
        elif self._phase is _Phase.BODY:
            self._table.waits(self)  # it makes progress

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._deaf:
            return
        super().on_message_begin()
        self._in_head = True
        self._phase = _Phase.HEAD
        self._since = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes behind the body is none (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, unless it offers another protocol: that one is read once more, without the offer."""
        self._in_head = False
        connect = self.parser.get_method() == _CONNECT  # it asks for a tunnel; there is no way to read it as another
        self._offered = self.parser.should_upgrade() and not connect
        if self._offered:
            return
        if len(self.pipeline) >= _MOST_PIPELINED:
            # What was taken is answered; then the connection ends, and the client repeats the rest on another.
            self._deaf = True
            self.cycle.keep_alive = False
            raise _TooMany
        super().on_headers_complete()
        self._phase = _Phase.BODY
        self._since = 0.0
        self._loose = 0
        if connect:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request's body, if it is one that was started."""
        if self._offered or self._deaf:
            return
        super().on_message_complete()
        self._loose = 0
        self._since = 0.0
        if self.cycle.response_complete:
            self._phase = _Phase.IDLE
            self._table.waits(self)
        else:
            self._phase = _Phase.BUSY
            self._table.served(self)

    def on_response_complete(self) -> None:
        """Go on to the next request, or wait for one. uvicorn's timer is not set: the table looks."""
        self.server_state.total_requests += 1
        self._since = 0.0
        self._table.waits(self)
        if self.pipeline:
            self._table.line_up(self)  # reading goes on with the last of them
            return
        if self._phase is _Phase.BUSY:
            self._phase = _Phase.IDLE
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def go_on(self) -> None:
        """Begin the next of the requests that were sent ahead of their turn."""
        if self.pipeline and not self.transport.is_closing():
            self._table.served(self)
            self._start_asgi_task(*self.pipeline.pop())

    def pause_writing(self) -> None:
        """Let the app wait: its client does not read as fast as it writes."""
        super().pause_writing()
        self._table.waits(self)

    def resume_writing(self) -> None:
        """Let the app go on."""
        super().resume_writing()
        self._drained = True
        if self._phase is _Phase.BUSY:
            self._table.served(self)

    def overdue(self, now: float, deadlines: Deadlines) -> Why | None:
        """Return why the connection is to be ended; ``None`` if it may go on.

        Args:
            now: The loop's time.
            deadlines: For how long it may wait.
        """
        if unsent := self.transport.get_write_buffer_size():
            # Less than before, or all of it went out in between: the client reads. More may be the app alone.
            if not self._unsent or unsent < self._unsent or self._drained:
                self._unsent_since = now
            self._unsent, self._drained = unsent, False
            return Why.UNREAD if now - self._unsent_since >= deadlines.unread_sec else None
        self._unsent = 0
        if self.transport.is_closing() or self._is_ours():
            self._since = 0.0
            return None
        if not self._since:
            self._since, self._received = now, 0
            return None
        return self._waited_for(now - self._since, now, deadlines)

    def end(self, why: Why) -> None:
        """End the connection at once, with an answer where the client waits for one."""
        if self._phase not in (_Phase.HEAD, _Phase.BODY) or why is Why.UNREAD:
            self._cut()
        elif why is Why.ROOM:
            self._refuse(503, "too_many_connections", "too many connections are open; this one stood still",
                         "Try again in a moment.")  # fmt: skip
        else:
            what = "head" if self._phase is _Phase.HEAD else "body"
            self._refuse(408, "request_timeout", f"the {what} of the request did not come in time",
                         "Send the request again, without long pauses in it.")  # fmt: skip

    def _waited_for(self, waited: float, now: float, deadlines: Deadlines) -> Why | None:
        match self._phase:
            case _Phase.NEW:
                return Why.SILENT if waited >= deadlines.head_sec else None
            case _Phase.HEAD:
                return Why.HEAD if waited >= deadlines.head_sec else None
            case _Phase.IDLE:
                return Why.IDLE if waited >= self.timeout_keep_alive else None
        if waited < deadlines.body_sec:
            return None
        if self._received < deadlines.body_bytes:
            return Why.BODY
        self._since, self._received = now, 0
        return None

    def _is_ours(self) -> bool:
        """Whether it is the server's turn, and not the client's."""
        if self._phase is _Phase.BODY:
            return self.flow.read_paused or self.cycle.waiting_for_100_continue
        return self._phase is _Phase.BUSY or bool(self.pipeline) or self._answers()

    def _answers(self) -> bool:
        """Whether the answer to an earlier request is still being made."""
        running = self._running
        if running is None or running.response_complete:
            return False
        return running is not self.cycle or self._phase is not _Phase.BODY

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self, status: int, code: str, detail: str, hint: str) -> None:
        """Answer in the place of the app, unless it has begun to, and end the connection."""
        if self._has_begun():
            self._cut()
            return
        body = json.dumps({"detail": detail, "code": code, "hint": hint}).encode()
        lines = [
            b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode()),
            *(b"%b: %b" % header for header in self.server_state.default_headers),
            b"content-type: application/json", b"content-length: %d" % len(body), b"connection: close",
            *([b"retry-after: 1"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        ]  # fmt: skip
        if not self.transport.is_closing():
            self.transport.write(b"\r\n".join([*lines, b"", body]))
        self._cut()

    def _has_begun(self) -> bool:
        """Whether an answer has begun after which another would be out of place."""
        if self._phase is _Phase.BODY and self.cycle.response_started:
            return True
        running = self._running
        if running is None or running.response_complete:
            return False
        return running.response_started or running is not self.cycle

    def _cut(self) -> None:
        self._deaf = True
        _disconnect(self._running)
        if self.cycle is not self._running:
            _disconnect(self.cycle)
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # to close would wait until the client has read
        else:
            self.transport.close()

    def head(self) -> bytes:
        """Return the head of the request that was read last, without its offer."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != _OFFER]
        return b"\r\n".join([*lines, b"", b""])


def _disconnect(cycle: RequestResponseCycle | None) -> None:
    """Let an app know that its client is gone."""
    if cycle is not None and not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()


class _Parser(httptools.HttpRequestParser):
    """A parser that goes on after an offer, where the library's leaves the rest to whoever speaks that protocol."""

    def __init__(self, protocol: Http1Protocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: "bytes | bytearray | memoryview | array[int]") -> None:
        """Parse what has arrived; more than one request may offer something."""
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self.get_method() == _CONNECT:
                    return  # what follows is for the end of a tunnel that there is not
                data = self._protocol.head() + bytes(data)[offer.args[0] :]
            except httptools.HttpParserCallbackError as error:
                if not isinstance(error.__context__, _TooMany):
                    raise
                return
            else:
                return
