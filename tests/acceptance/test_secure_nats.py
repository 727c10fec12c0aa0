"""The real commands on a NATS with the configuration that we give to users: each may do what it must, and no more."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import nats
import pytest
from anyio.from_thread import start_blocking_portal

from pyoco_server.client.http import PyocoHttpClient
from tests.nats_with_users import SecuredNats
from tests.wheels import make_wheel

from .conftest import BIN, Process, System
from .wheel_uploads import flow_of, outputs

FAST = {
    "PYOCO_CONSUMER_ACK_WAIT_SEC": "2",
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "0.5",
    "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5",
    "PYOCO_CANCEL_GRACE_PERIOD_SEC": "1",
}


def user(name: str) -> dict[str, str]:
    return {"PYOCO_NATS_USER": name, "PYOCO_NATS_PASSWORD": SecuredNats.PASSWORDS[name.upper()]}


def keys_user(name: str) -> dict[str, str]:
    return {"PYOCO_AUTH_NATS_USER": name, "PYOCO_AUTH_NATS_PASSWORD": SecuredNats.PASSWORDS[name.upper()]}


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYOCO_LOAD_DOTENV": "0", **environment}
    return subprocess.run([BIN / arguments[0], *arguments[1:]], env=given, capture_output=True, text=True, timeout=60)


WORKER = {**FAST, **user("worker")}
WAIT = "import os, time\ndef t():\n    print('hello', flush=True)\n    time.sleep(0 if os.path.exists({!r}) else 60)\n"


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredNats]:
    server = SecuredNats(tmp_path_factory.mktemp("nats"))
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield server


@pytest.fixture(scope="module")
def system(nats_server: SecuredNats, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("system")
    key_admin = {"PYOCO_NATS_URL": nats_server.url, **user("gateway"), **keys_user("keys_admin")}
    made = command(key_admin, "pyoco-server-admin", "api-key", "create", "--tenant", "demo", "--role", "operator")
    assert (made.returncode, made.stderr) == (0, "")
    key = json.loads(made.stdout)["api_key"]
    arguments = ["pyoco-server", "up", "--port", "0", "--nats-url", nats_server.url]
    environment = {**FAST, **user("gateway"), **keys_user("keys"), "PYOCO_HTTP_AUTH_MODE": "api_key"}
    server = Process(arguments, folder, **environment)
    up = server.wait_for("pyoco-server is up")
    with PyocoHttpClient(up["url"], api_key=key, retry_sec=10) as http:
        running = System(folder, up["url"], nats_server.url, server, http)
        try:
            yield running
        finally:
            for process in [*running.processes, server]:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.stop()


def test_a_flow_with_wheels_its_log_a_cancel_and_a_dead_letter(system: System, tmp_path: Path) -> None:
    assert httpx2.get(f"{system.url}/runs").status_code == 401
    system.worker("--wheel-sync", worker_id="w", tags="cpu", **WORKER)
    wheel = make_wheel(tmp_path, "secure-lib", "1", {"secure_lib/__init__.py": "def t():\n    return 'from a wheel'\n"})
    system.client.upload_wheel(path=wheel, tags=["cpu"])
    assert outputs(system.run(flow_of("secure_lib:t"))) == ["from a wheel"]
    assert [event["action"] for event in system.client.list_wheel_history()] == ["upload"]

    run_id = system.client.submit_run_yaml(system.flow(WAIT.format("")), flow_name="main", tag="cpu")["run_id"]
    assert any("hello" in str(event) for event in system.client.follow_logs(run_id))
    system.client.cancel_run(run_id)
    assert system.end(run_id)["status"] == "CANCELLED"
    assert "hello" in str(system.client.get_logs(run_id))

    failed = system.run(system.flow("def t():\n    raise ValueError('no')\n"))
    assert failed["status"] == "FAILED"
    letter = system.letter()
    assert letter["run_id"] == failed["run_id"]
    replayed = system.client.replay_dead_letter(letter["id"])
    assert replayed["rerun_of"] == failed["run_id"]
    assert system.end(replayed["run_id"])["status"] == "FAILED"


@pytest.mark.slow
def test_a_worker_drains_and_the_run_of_a_killed_one_goes_to_another(system: System) -> None:
    mark = system.folder / "second"
    leaving = system.worker("--drain-timeout-sec", "0.2", worker_id="leaving", tags="moving", **WORKER)
    flow = system.flow(WAIT.format(str(mark)))
    run_id = system.client.submit_run_yaml(flow, flow_name="main", tag="moving")["run_id"]
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    assert leaving.stop(signal.SIGTERM) == 0
    system.stopped("leaving")
    [gone] = system.client.get_workers(scope="all", state="STOPPED_GRACEFUL")
    assert gone["worker_id"] == "leaving"

    dying = system.worker(worker_id="dying", tags="moving", **WORKER)
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING" and run["worker_id"] == "dying")
    dying.stop(signal.SIGKILL)
    mark.touch()
    system.worker(worker_id="heir", tags="moving", **WORKER)
    run = system.end(run_id)
    assert (run["status"], run["worker_id"], run["attempt"]) == ("COMPLETED", "heir", 2)


async def _remove_consumer(url: str, tag: str) -> None:
    admin = await nats.connect(url, user="admin", password=SecuredNats.PASSWORDS["ADMIN"])
    await admin.jetstream().delete_consumer("PYOCO_WORK", f"pyoco_workers_{tag}")
    await admin.close()


def test_a_consumer_that_is_gone_is_made_by_the_gateway(system: System) -> None:
    system.worker(worker_id="patient", tags="patient", **WORKER)
    with start_blocking_portal("asyncio") as portal:
        portal.call(_remove_consumer, system.nats_url, "patient")
    assert system.run(system.flow("def t():\n    return 1\n"), tag="patient")["status"] == "COMPLETED"


def test_it_is_checked_and_backed_up(system: System, nats_server: SecuredNats, tmp_path: Path) -> None:
    key = {**keys_user("keys"), "PYOCO_HTTP_AUTH_MODE": "api_key"}
    checked = command({"PYOCO_NATS_URL": nats_server.url, **user("gateway"), **key}, "pyoco-server", "check")
    assert checked.returncode == 0, checked.stdout
    admin = {"PYOCO_NATS_URL": nats_server.url, **user("admin"), **keys_user("keys_admin")}
    backed_up = command(admin, "pyoco-server", "backup", str(tmp_path / "backup.tar"))
    assert backed_up.returncode == 0, backed_up.stderr
    assert json.loads(backed_up.stdout)["streams"]["KV_pyoco_auth"] == 1


def test_nobody_asked_for_more_than_it_may(system: System, nats_server: SecuredNats) -> None:
    log = nats_server._dir / "nats-server.log"
    ready = time.monotonic() + 10
    while "Server is ready" not in log.read_text():
        assert time.monotonic() < ready
    asked = set(re.findall(r'Violation - Subject "([^"]+)"', log.read_text()))
    # A worker tries once whether it may make a consumer; where it may not, it asks the gateway.
    allowed = re.compile(r"\$JS\.API\.CONSUMER\.DURABLE\.CREATE\.PYOCO_WORK\.pyoco_workers_\w+")
    assert {subject for subject in asked if not allowed.fullmatch(subject)} == set()
