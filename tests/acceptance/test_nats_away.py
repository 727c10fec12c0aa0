"""NATS goes away and comes back: 503 at once meanwhile, and well again without a restart."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from pyoco_server.client.http import PyocoHttpClient
from tests.ports import free_port

from .conftest import BIN, DEADLINE, TUTORIAL, Process, System


class Nats:
    """A nats-server that is killed and started again on its port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ["-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.folder / "js")]
        log = (self.folder / "nats.log").open("ab")
        self.popen = subprocess.Popen([BIN / "nats-server", *arguments], stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait()


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    server = Nats(tmp_path, free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def system(tmp_path: Path, nats: Nats) -> Iterator[System]:
    url = f"nats://127.0.0.1:{nats.port}"
    gateway = Process(["pyoco-server", "--port", "0", "--nats-url", url], tmp_path)
    up = gateway.wait_for("pyoco-server is up")
    with PyocoHttpClient(up["url"]) as client:
        system = System(tmp_path, up["url"], url, gateway, client)
        wait_for(system, 200)
        yield system
    for process in system.processes:
        process.stop()
    gateway.stop()


def wait_for(system: System, status: int, timeout: float = DEADLINE) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if httpx2.get(f"{system.url}/ready").status_code == status:
            return
        os.sched_yield()
    raise AssertionError(f"/ready did not answer {status} within {timeout} s")


def test_503_meanwhile_and_well_again_by_itself(system: System, nats: Nats) -> None:
    worker = system.worker()
    assert system.run(TUTORIAL)["status"] == "COMPLETED"
    waiting = system.client.submit_run_yaml(TUTORIAL, flow_name="main", tag="later")["run_id"]
    with httpx2.stream("GET", f"{system.url}/runs/{waiting}/watch?timeout_sec=60", timeout=10) as watch:
        lines = watch.iter_lines()
        assert next(lines) == "event: snapshot" or next(lines) == "event: snapshot"
        nats.kill()
        wait_for(system, 503)
        with httpx2.Client(base_url=system.url, timeout=10) as http:
            for path in ("/runs", f"/runs/{waiting}", f"/runs/{waiting}/tasks", "/workers"):
                asked = time.monotonic()
                answer = http.get(path)
                assert (answer.status_code, answer.json()["code"]) == (503, "nats_unavailable")
                assert answer.json()["hint"] and answer.json()["trace_id"]
                assert time.monotonic() - asked < 5  # it must not hang until a request's own time-out
            assert http.get("/health").json() == {"status": "ok"}
        nats.start()
        wait_for(system, 200)
        system.worker(worker_id="later", tags="later")
        statuses = [line for line in lines if line.startswith("data:") and '"snapshot"' in line]
        assert '"COMPLETED"' in statuses[-1]
    assert system.run(TUTORIAL)["status"] == "COMPLETED"
    assert worker.popen.poll() is None


def test_a_run_goes_on_while_nats_is_away(system: System, nats: Nats) -> None:
    system.worker()
    place = system.folder / "go"
    code = f"import os, time\ndef t():\n    while not os.path.exists({str(place)!r}): time.sleep(0.01)\n    return 5\n"
    run_id = system.client.submit_run_yaml(system.flow(code), flow_name="main", tag="cpu")["run_id"]
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    nats.kill()
    place.touch()
    wait_for(system, 503)
    nats.start()
    wait_for(system, 200)
    run = system.end(run_id)
    assert (run["status"], run["attempt"]) == ("COMPLETED", 1)
    assert run["task_records"]["t"]["output"] == 5


def test_nats_comes_back_with_an_empty_store(system: System, nats: Nats) -> None:
    system.worker()
    lost = system.run(TUTORIAL)["run_id"]
    nats.kill()
    shutil.rmtree(nats.folder / "js")
    wait_for(system, 503)
    nats.start()
    wait_for(system, 200)
    deadline = time.monotonic() + DEADLINE
    while httpx2.get(f"{system.url}/runs").json() != [] and time.monotonic() < deadline:
        os.sched_yield()
    assert httpx2.get(f"{system.url}/runs").json() == []
    assert httpx2.get(f"{system.url}/runs/{lost}").status_code == 404
    assert system.run(TUTORIAL)["status"] == "COMPLETED"
    assert len(httpx2.get(f"{system.url}/runs").json()) == 1


def test_up_says_so_when_its_own_nats_dies_and_starts_it_again(tmp_path: Path) -> None:
    arguments = "up --with-nats --nats-client-port -1 --nats-http-port -1 --port 0".split()
    server = Process(["pyoco-server", *arguments], tmp_path)
    try:
        url = server.wait_for("pyoco-server is up")["url"]
        [first] = [line for line in server.lines if line["message"] == "nats-server is up"]
        run_id = httpx2.post(f"{url}/runs", json={"flow_name": "f"}).json()["run_id"]
        os.kill(first["pid"], signal.SIGKILL)
        died = server.wait_for("a part has died; starting it again")
        assert (died["part"], died["exit"], died["deaths"]) == ("nats-server", "killed by SIGKILL", 1)
        again = server.wait_for("nats-server is up again")
        assert again["nats_url"] == first["nats_url"] and again["pid"] != first["pid"]
        server.wait_for("NATS is back")
        assert httpx2.get(f"{url}/runs/{run_id}").json()["status"] == "PENDING"
    finally:
        assert server.stop() == 0


def test_fresh_store_answers_empty(system: System) -> None:
    assert httpx2.get(f"{system.url}/runs").json() == []
    assert httpx2.get(f"{system.url}/runs?cursor=").json() == {"items": [], "next_cursor": None}
    assert httpx2.get(f"{system.url}/workers").json() == []
