"""Many clients that stand still, against a gateway with 1,024 descriptors; and what of that limit runs see."""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import httpx2
import psutil
import pytest

from pyoco_server.client.http import PyocoHttpClient

from .conftest import BIN, Process, System

FEW = 1024
LESS = 900
"""What the gateway is started with, and may raise to ``FEW``."""
CROWD = 1100
GET = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
KINDS = {
    "half a head": GET[:-2] + b"X-A: ",
    "a length and no body": POST + b"Content-Length: 100\r\n\r\n",
    "half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\na",
    "an answered request": GET,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "noise": bytes(range(256)),
    "answers that are not read": b"GET /static/app.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 100,
}
LIMITS = """\
import resource, subprocess
def t(ctx):
    return [resource.getrlimit(resource.RLIMIT_NOFILE)[0], int(subprocess.check_output("ulimit -Sn", shell=True))]
"""


@pytest.fixture(scope="module", autouse=True)
def _descriptors() -> Iterator[None]:
    """Let the tests have a crowd of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CROWD:
        pytest.skip(f"this machine lets a process have {hard} descriptors; the crowd needs {2 * CROWD}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CROWD), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system, worker and all, that may have 1,024 descriptors and is started with fewer."""
    folder = tmp_path_factory.mktemp("few")
    up = "up --with-nats --nats-client-port -1 --nats-http-port -1 --port 0 --with-worker --worker-tags cpu"
    limits = f"ulimit -Sn {LESS} && ulimit -Hn {FEW}"
    server = Process(["/bin/sh", "-c", f"{limits} && exec {BIN / 'pyoco-server'} {up}"], folder)
    try:
        told = server.wait_for("pyoco-server is up")
        with PyocoHttpClient(told["url"]) as client:
            yield System(folder, told["url"], told["nats_url"], server, client)
    finally:
        server.stop()


@contextlib.contextmanager
def crowd(system: System, said: bytes = b"", sources: int = 1) -> Iterator[None]:
    """Connect many clients that say something and then nothing more."""
    port = httpx2.URL(system.url).port
    with contextlib.ExitStack() as stack:
        for number in range(CROWD):
            sock = stack.enter_context(socket.socket())
            sock.bind((f"127.0.{1 + number % sources % 200}.{1 + number % sources // 200}", 0))
            sock.settimeout(10)
            with contextlib.suppress(ConnectionError):  # it has given way already
                sock.connect(("127.0.0.1", port))
                sock.sendall(said)
        yield


def check_good_requests(system: System) -> None:
    """Let good requests pass, each over a connection of its own."""
    for path in ("/health", "/runs", "/workers", "/ready") * 3:
        assert httpx2.get(f"{system.url}{path}", timeout=10).status_code == 200


def ended(system: System, reason: str) -> float:
    name = f'pyoco_http_connections_ended_total{{reason="{reason}"}}'
    [line] = [line for line in httpx2.get(f"{system.url}/metrics").text.splitlines() if line.startswith(name)]
    return float(line.split()[-1])


def test_silent_connections_keep_nobody_out_and_are_told_of(few: System) -> None:
    assert httpx2.get(f"{few.url}/ready").json()["warnings"] == []
    with crowd(few):
        check_good_requests(few)
        ready = httpx2.get(f"{few.url}/ready").json()
        assert ready["connections"]["descriptors"] == FEW
        assert ready["connections"]["open"] <= ready["connections"]["limit"] == FEW - 256
        assert any("connections were closed or refused" in line for line in ready["warnings"])
        assert ended(few, "room") >= CROWD - ready["connections"]["limit"]
        few.server.wait_for("connections that wait give way to new ones: too many are open")
        assert "connections_short" in {finding["code"] for finding in few.client.get_doctor()["findings"]}


def test_runs_get_the_limit_that_all_was_started_with(few: System) -> None:
    run = few.run(few.flow(LIMITS))
    assert run["task_records"]["t"]["output"] == [LESS, LESS]
    children = psutil.Process(few.server.popen.pid).children()
    [worker] = [child for child in children if "pyoco_server.cli.worker" in child.cmdline()]
    assert worker.rlimit(psutil.RLIMIT_NOFILE) == (FEW, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_keep_nobody_out_either(few: System, kind: str) -> None:
    with crowd(few, KINDS[kind]):
        check_good_requests(few)


@pytest.mark.slow
def test_nor_do_many_addresses(few: System) -> None:
    with crowd(few, sources=CROWD):
        check_good_requests(few)


@pytest.mark.slow
def test_a_silent_crowd_goes_away_by_itself(few: System) -> None:
    with crowd(few):
        deadline = time.monotonic() + 60
        while httpx2.get(f"{few.url}/ready").json()["connections"]["open"] > 5:
            assert time.monotonic() < deadline, "silent connections stay"
            time.sleep(0.5)
