"""Counts requests, by the route's template and never by the path that was asked for."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyoco_server.gateway.monitoring.metrics import Metrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STREAM = b"text/event-stream"
_ABORTED = "aborted"
_UNMATCHED = "unmatched"


class HttpMetrics:
    """ASGI middleware: durations until an answer begins, codes, and the event streams that are open.

    Args:
        app: What comes after it.
        metrics: Where to count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self._metrics, scope, send)
        try:
            await self._app(scope, receive, exchange.send)
        except Exception:
            exchange.count("500")  # what is outside of us answers that
            raise
        finally:
            exchange.end()


class _Exchange:
    def __init__(self, metrics: Metrics, scope: Scope, send: Send) -> None:
        self._metrics = metrics
        self._scope = scope
        self._send = send
        self._began = time.monotonic()
        self._counted = False
        self._stream: str | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._counted:
            route = self.count(str(message["status"]))
            if any(key.lower() == b"content-type" and value.startswith(_STREAM) for key, value in message["headers"]):
                self._stream = route
                self._metrics.open_streams.labels(route).inc()
        await self._send(message)

    def count(self, code: str) -> str:
        """Count the request once, and tell its route."""
        method = self._scope["method"] if self._scope["method"] in _METHODS else "OTHER"
        route = _template(self._scope)
        if not self._counted:
            self._counted = True
            self._metrics.requests.labels(method, route, code).inc()
            self._metrics.request_seconds.labels(method, route).observe(time.monotonic() - self._began)
        return route

    def end(self) -> None:
        self.count(_ABORTED)
        if self._stream is not None:
            self._metrics.open_streams.labels(self._stream).dec()


def _template(scope: Scope) -> str:
    """Give the route that matched, such as ``/runs/{run_id}``, or where the app is mounted that did."""
    path = getattr(scope.get("route"), "path", None)
    if path is None and "app_root_path" in scope:  # a mount matched
        path = scope["root_path"].removeprefix(scope["app_root_path"])
    return str(path or _UNMATCHED)
