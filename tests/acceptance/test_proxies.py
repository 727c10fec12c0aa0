"""The real client behind real proxies: one that works, and every way in which one may not."""

import contextlib
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from pyoco_server import AsyncPyocoHttpClient, PyocoHttpClient
from pyoco_server.errors import PyocoError

from .conftest import BIN, System

pytestmark = pytest.mark.slow

FAR = "http://gateway.example:8000"
"""Nobody's name: only a proxy makes an answer come from it."""
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
Handle = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def proxy(handle: Handle) -> Iterator[str]:
    """A proxy of one's own; gives ``host:port``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            handle(self)

        do_POST = do_CONNECT = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def answering(status: int, text: str = "<html>says no</html>") -> Handle:
    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(text)))
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(text.encode())

    return handle


def client(*arguments: str, server: str = FAR, program: str = "pyoco-client", **environment: str) -> Any:
    kept = {name: value for name, value in os.environ.items() if name.upper() not in NAMES}
    kept = {name: value for name, value in kept.items() if not name.startswith("PYOCO_")}
    command = [str(BIN / program), *(["--server", server] if program == "pyoco-client" else []), *arguments]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr + done.stdout
    return done


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTP_PROXY": "http://127.0.0.1:1"},
        {"ALL_PROXY": "socks5://127.0.0.1:1"},
        {"ALL_PROXY": "socks5://127.0.0.1:1", "NO_PROXY": "127.0.0.1"},
        {"all_proxy": "nonsense://[", "http_proxy": "http://127.0.0.1:1", "no_proxy": "nothing,[,:,*."},
    ],
)
def test_this_machine_is_reached_directly(system: System, environment: dict[str, str]) -> None:
    for server in (
        system.url,
        system.url.replace("127.0.0.1", "localhost"),
        system.url.replace("127.0.0.1", "0.0.0.0"),
    ):
        done = client("list", server=server, **environment)
        assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert client("doctor", server=system.url, **environment).returncode == 0
    checked = client("check", "--nats-url", system.nats_url, "--url", system.url, program="pyoco-server", **environment)
    assert checked.returncode == 0, checked.stdout


def test_one_that_works(system: System) -> None:
    seen = []

    def forward(request: http.server.BaseHTTPRequestHandler) -> None:
        seen.append((request.path, request.headers["Proxy-Authorization"]))
        parts = urlsplit(request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with httpx2.Client(trust_env=False) as http:
            answer = http.request(
                request.command, f"{system.url}{parts.path}?{parts.query}", content=body,
                headers={"Content-Type": request.headers.get("Content-Type") or ""},
            )  # fmt: skip
        answering(answer.status_code, answer.text)(request)

    with proxy(forward) as address:
        environment = {"HTTP_PROXY": f"http://me:hunter2@{address}"}
        assert json.loads(client("list", **environment).stdout) == []
        missing = client("get", "no-such-run", **environment)
        # What the server itself refuses is told as such.
        assert missing.returncode == 5 and "run not found" in missing.stderr and "proxy" not in missing.stderr
        assert client("submit", "--tag", "nobody", **environment).returncode == 0
        checked = client("check", "--nats-url", system.nats_url, "--url", FAR, program="pyoco-server", **environment)
        assert checked.returncode == 0, checked.stdout
    assert all(path.startswith(FAR) and auth == "Basic bWU6aHVudGVyMg==" for path, auth in seen) and len(seen) == 4


@pytest.mark.parametrize(
    ("status", "told"),
    [(403, "HTTP 403 Forbidden"), (407, "HTTP 407 Proxy Authentication Required"), (404, "HTTP 404 Not Found"),
     (401, "HTTP 401 Unauthorized"), (302, "HTTP 302 Found"), (200, "HTTP 200 OK, which is not JSON")],
)  # fmt: skip
def test_one_that_answers_itself(status: int, told: str) -> None:
    with proxy(answering(status)) as address:
        done = client("submit", HTTP_PROXY=f"http://me:hunter2@{address}")
        assert done.returncode == 7 and "hunter2" not in done.stderr and "key" not in done.stderr
        assert (
            f"error: the proxy http://{address} (from HTTP_PROXY) answered in the server's place: {told}" in done.stderr
        )
        assert "NO_PROXY=gateway.example" in done.stderr
        assert ("user and a password" in done.stderr) is (status == 407)
        doctor = client("doctor", HTTP_PROXY=f"http://me:hunter2@{address}")
        assert doctor.returncode == 1 and "(proxy_fails)" in doctor.stdout and f"http://{address}" in doctor.stdout


@pytest.mark.parametrize("status", [502, 504])
def test_one_that_does_not_get_through(status: int) -> None:
    with proxy(answering(status)) as address:
        done = client("--retry-sec", "0", "submit", ALL_PROXY=f"http://me:hunter2@{address}")
        assert done.returncode == 7 and "hunter2" not in done.stderr
        assert (
            f"the proxy http://{address} (from ALL_PROXY) answered in the server's place: HTTP {status}" in done.stderr
        )


@pytest.mark.parametrize("status", [403, 407, 502])
def test_one_that_opens_no_tunnel(status: int) -> None:
    with proxy(answering(status)) as address:
        done = client(
            "--retry-sec", "0", "submit",
            server="https://gateway.example", https_proxy=f"me:hunter2@{address}",
        )  # fmt: skip
        assert done.returncode == 7 and "hunter2" not in done.stderr and "pyoco-server up" not in done.stderr
        assert f"https://gateway.example through the proxy http://{address} (from https_proxy): {status}" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [("HTTP_PROXY", "http://me:hunter2@127.0.0.1:1", "http://127.0.0.1:1"),
     ("ALL_PROXY", "socks5://me:hunter2@127.0.0.1:1", "socks5://127.0.0.1:1"),
     ("http_proxy", "ftp://me:hunter2@h:1", "ftp://h:1"), ("http_proxy", "me:hunter2@h:port", "h:port")],
)  # fmt: skip
def test_one_that_cannot_be_used(tmp_path: Path, variable: str, value: str, shown: str) -> None:
    for program, arguments in [
        ("pyoco-client", ["list"]),
        ("pyoco-server", ["check", "--timeout-sec", "1", "--url", FAR]),
    ]:
        done = client(*arguments, program=program, **{variable: value})
        told = done.stderr + done.stdout
        assert done.returncode in (1, 7) and shown in told and variable in told
        assert "hunter2" not in told and "pyoco-server up" not in done.stderr


@pytest.mark.anyio
async def test_both_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with proxy(answering(403)) as address:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:hunter2@{address}")
        with PyocoHttpClient(FAR) as blocking, pytest.raises(PyocoError) as first:
            blocking.get_run("r")
        async with AsyncPyocoHttpClient(FAR) as waiting:
            with pytest.raises(PyocoError) as second:
                await waiting.get_run("r")
            with pytest.raises(PyocoError) as third:
                _ = [event async for event in waiting.watch_run("r")]
        told = [(one.value.message, one.value.hint, one.value.exit_code) for one in (first, second, third)]
        assert len(set(told)) == 1 and f"the proxy http://{address} (from HTTP_PROXY)" in told[0][0]


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    done = client("list", SSL_CERT_FILE=str(tmp_path / "none.pem"))
    assert done.returncode == 1 and "none.pem' (from SSL_CERT_FILE) cannot be read" in done.stderr
