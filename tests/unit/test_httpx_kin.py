"""Programs written for the existing client catch httpx's errors: ours are those, too."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import httpx2
import pytest

from pyoco_server.client.async_http import AsyncPyocoHttpClient
from pyoco_server.client.errors import ApiError, CannotConnect
from pyoco_server.client.http import PyocoHttpClient

both = pytest.mark.parametrize("kind", ["sync", "async"])
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("get_run", ("r",), {}),
    ("submit_run", ("main",), {}),
    ("submit_run_yaml", ("version: 1",), {"flow_name": "main"}),
    ("cancel_run", ("r",), {}),
    ("watch_run", ("r",), {}),
    ("follow_logs", ("r",), {}),
    ("upload_wheel", (), {"filename": "a-1-py3-none-any.whl", "data": b"x"}),
    ("get_metrics", (), {}),
]
every_call = pytest.mark.parametrize(("method", "args", "options"), CALLS, ids=[name for name, *_ in CALLS])


def call(kind: str, url: str, method: str, *args: Any, timeout: float = 10.0, **options: Any) -> Any:
    """Call a method of either client."""
    streams = method in ("watch_run", "follow_logs")
    if kind == "sync":
        with PyocoHttpClient(url, timeout=timeout) as client:
            result = getattr(client, method)(*args, **options)
            return list(result) if streams else result

    async def run() -> Any:
        async with AsyncPyocoHttpClient(url, timeout=timeout) as client:
            result = getattr(client, method)(*args, **options)
            return [event async for event in result] if streams else await result

    return asyncio.run(run())


class Refusing(BaseHTTPRequestHandler):
    """Refuses everything, or breaks off in the middle of it."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"detail": "no such run", "code": "run_not_found"}'
        self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + self.server.missing))  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def refusing() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.missing = 0  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, args=(0.02,)).start()
        yield server
        server.shutdown()


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@both
@every_call
def test_a_refusal_is_an_http_status_error_of_httpx(
    kind: str, method: str, args: tuple[Any, ...], options: dict[str, Any], refusing: ThreadingHTTPServer
) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        call(kind, url_of(refusing), method, *args, **options)
    error: Any = caught.value
    assert isinstance(error, (ApiError, httpx.HTTPError)) and isinstance(error, httpx2.HTTPStatusError)
    assert (error.response.status_code, error.response.json()["code"]) == (404, "run_not_found")
    assert str(error.request.url).startswith(url_of(refusing)) and error.response.request is error.request
    assert (str(error), error.code, error.exit_code) == ("no such run", "run_not_found", 5)
    assert (type(error).__name__, type(error).__module__) == ("ApiError", ApiError.__module__)


@both
@every_call
def test_a_server_that_is_not_there_is_a_connect_error_of_httpx(
    kind: str, method: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with socket.socket() as bound:  # nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(httpx.ConnectError) as caught:
            call(kind, url, method, *args, **options)
    error: Any = caught.value
    assert isinstance(error, CannotConnect) and isinstance(error, (httpx.TransportError, httpx.HTTPError))
    assert not isinstance(error, httpx.TimeoutException)
    assert str(error.request.url).startswith(url) and url in error.message


@both
def test_silence_is_a_read_timeout_of_httpx(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(httpx.TimeoutException) as caught:
        call(kind, f"http://127.0.0.1:{silent.getsockname()[1]}", "get_run", "r", timeout=0.1)
    assert isinstance(caught.value, httpx.ReadTimeout) and isinstance(caught.value, CannotConnect)


@both
def test_a_broken_answer_is_the_same_error_of_httpx(kind: str, refusing: ThreadingHTTPServer) -> None:
    refusing.missing = 10  # type: ignore[attr-defined]
    with pytest.raises(httpx.RemoteProtocolError) as caught:
        call(kind, url_of(refusing), "get_run", "r")
    assert isinstance(caught.value, CannotConnect)


def test_what_is_not_json_is_a_value_error_as_it_was() -> None:
    response = httpx2.Response(200, text="hello", request=httpx2.Request("GET", "http://x/runs/r"))
    transport = httpx2.MockTransport(lambda _: response)
    with PyocoHttpClient("http://x") as client:
        client._client = httpx2.Client(base_url="http://x", transport=transport)
        with pytest.raises(ValueError, match="not JSON"):
            client.get_run("r")


def test_without_httpx_nothing_changes_and_nobody_imports_it() -> None:
    program = """
import sys
from pyoco_server import PyocoHttpClient
from pyoco_server.client.errors import ApiError, CannotConnect
import httpx2
try:
    PyocoHttpClient("http://127.0.0.1:1").get_run("r")
except CannotConnect as error:
    assert type(error) is CannotConnect, type(error).__mro__
error = ApiError(httpx2.Response(404, request=httpx2.Request("GET", "http://x")), "no")
assert type(error) is ApiError and error.response.status_code == 404
assert "httpx" not in sys.modules
import httpx
error = ApiError(error.response, "no")
assert isinstance(error, (httpx.HTTPStatusError, ApiError)) and isinstance(error, httpx.HTTPStatusError)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
