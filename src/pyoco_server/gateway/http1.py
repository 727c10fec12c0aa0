"""HTTP/1.1, spoken also with those who offer another protocol.

``curl --http2`` and Java's client offer HTTP/2 with their first request (``Upgrade: h2c``), and go on in HTTP/1.1 where
the answer does not take the offer up, as RFC 9110 has it. uvicorn's parser stops at the end of such a request's head,
and loses its body. The gateway speaks nothing but HTTP/1.1, so here every offer is read over, websockets among them.

A uvicorn of one's own takes it by ``--http pyoco_server.gateway.http1:Http1Protocol --ws none``.
"""

from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from array import array

_CONNECT = b"CONNECT"
_OFFER = b"upgrade"


class Http1Protocol(HttpToolsProtocol):
    """uvicorn's protocol, where the offer of another protocol changes nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parser = _Parser(self)
        # As uvicorn sets it: a request after one that closes the connection does not spoil the answer to that one.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._offered = False

    def on_headers_complete(self) -> None:
        """Start the request, unless it offers another protocol: that one is read once more, without the offer."""
        connect = self.parser.get_method() == _CONNECT  # it asks for a tunnel; there is no way to read it as another
        self._offered = self.parser.should_upgrade() and not connect
        if self._offered:
            return
        super().on_headers_complete()
        if connect:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """End the request's body, if it is one that was started."""
        if not self._offered:
            super().on_message_complete()

    def head(self) -> bytes:
        """Return the head of the request that was read last, without its offer."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != _OFFER]
        return b"\r\n".join([*lines, b"", b""])


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
            else:
                return
