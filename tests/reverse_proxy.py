"""A reverse proxy that serves a gateway under a path of its own, as nginx and Caddy do."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade"}


@contextlib.contextmanager
def reverse_proxy(
    target: str, prefix: str, *, keeps: bool = False, host: bool = True, headers: dict[str, str] | None = None
) -> Iterator[str]:
    """Start a proxy, and yield the address under which it serves the target; for all else it answers 418.

    Args:
        target: The gateway's address.
        prefix: The path, such as ``/pyoco``.
        keeps: Whether the gateway gets the path with the prefix.
        host: Whether the gateway is told the name that the client used, and not its own.
        headers: What the proxy sets beside what the client sends.
    """

    class Handler(_Handler):
        to = urlsplit(target)
        path_prefix, keeps_prefix, keeps_host, more = prefix, keeps, host, headers or {}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    to: Any
    path_prefix: str
    keeps_prefix: bool
    keeps_host: bool
    more: dict[str, str]

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def handle_request(self) -> None:
        if not self.path.startswith(f"{self.path_prefix}/"):
            self.send_error(418)
            return
        path = self.path if self.keeps_prefix else self.path.removeprefix(self.path_prefix)
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        if not self.keeps_host:
            sent["Host"] = self.to.netloc
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(self.to.hostname, self.to.port, timeout=30)
        with contextlib.closing(connection), contextlib.suppress(ConnectionError):
            connection.request(self.command, path, body, {**sent, **self.more})
            self._pass_on(connection.getresponse())

    def _pass_on(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()
        while piece := answer.read1():
            self.wfile.write(piece)
            self.wfile.flush()

    do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = handle_request
