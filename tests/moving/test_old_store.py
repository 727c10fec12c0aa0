"""Our commands start on a store that the existing system made and worked with: all is there, and what waits is run."""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import nats
import pytest
from anyio.from_thread import start_blocking_portal

from pyoco_server.client.http import PyocoHttpClient
from tests.acceptance.conftest import BIN, DEADLINE, Process, System, running_system
from tests.nats_with_users import NatsWith

from .oldstore import PEPPER, RESOLVER, OldFiles, OldStore

pytestmark = pytest.mark.moving

USES_A_WHEEL = """version: 1
flow: {graph: triple, defaults: {x: 14}}
tasks:
  triple: {callable: "old_tasks:triple", inputs: {x: $ctx.params.x}}
"""
OFF = "direct reads of a stream are off, and stay so; it is read message by message, which takes longer"
TURNED_ON = "direct reads of a stream were off: turned on, and nothing else of it was changed"


@dataclass
class Moved:
    """Our system on the old store."""

    store: OldStore
    system: System
    environment: dict[str, str]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours to its end."""
        return subprocess.run(
            [BIN / arguments[0], *arguments[1:]], cwd=self.system.folder, capture_output=True, text=True,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.system.folder), **self.environment}, timeout=60,
        )  # fmt: skip

    def check(self) -> dict[str, dict[str, Any]]:
        """Run ``pyoco-server check``; its findings by their code."""
        told = json.loads(self.command("pyoco-server", "check", "--output", "json").stdout)
        return {found["code"]: found for found in told["findings"]}

    def ready(self) -> dict[str, Any]:
        """Ask ``/ready`` until it is: a start makes streams, and builds the index of runs."""
        deadline = time.monotonic() + DEADLINE
        while (told := httpx2.get(f"{self.system.url}/ready", timeout=10).json())["status"] != "ready":
            assert time.monotonic() < deadline, told
            time.sleep(0.05)
        return dict(told)

    def worker(self) -> Process:
        """Start a worker of ours with the old resolver and with wheels."""
        arguments = ["--flow-resolver", RESOLVER, "--wheel-sync"]
        return self.system.worker(*arguments, worker_id="ours", tags="default", **self.environment)


Move = Callable[..., contextlib.AbstractContextManager[Moved]]


@pytest.fixture
def move(old_files: OldFiles, tmp_path: Path) -> Move:
    """Starts ours on a copy of the old store, as a user of NATS who may not do what is named."""

    @contextlib.contextmanager
    def moving(*denied: str, data: Path | None = None) -> Iterator[Moved]:
        folder = tmp_path / "ours"
        folder.mkdir()
        shutil.copy(old_files.store.folder / "flows.py", folder)
        more: dict[str, Any] = {}
        environment = {"PYOCO_STATE_DIR": str(folder / "state")}
        if denied:
            permissions = {"publish": {"deny": list(denied)}}
            more = {"authorization": {"users": [{"user": "u", "password": "p", "permissions": permissions}]}}
            environment |= {"PYOCO_NATS_USER": "u", "PYOCO_NATS_PASSWORD": "p"}
        server = NatsWith(data or old_files.copy_to(tmp_path / "nats"), **more)
        with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
            environment["PYOCO_NATS_URL"] = server.url
            if data is None:
                portal.call(beat_again, server.url, bool(denied), old_files.store.workers[0])
            gateway = Process(["pyoco-server", "up", "--port", "0"], folder, **environment)
            system = None
            try:
                url = gateway.wait_for("pyoco-server is up")["url"]
                with PyocoHttpClient(url) as client:
                    system = System(folder, url, server.url, gateway, client)
                    yield Moved(old_files.store, system, environment)
            finally:
                for process in [*(system.processes if system else []), gateway]:
                    process.stop()

    return moving


def test_everything_is_there_and_what_waits_is_run(move: Move) -> None:
    with move() as moved:
        assert moved.ready()["status"] == "ready" and moved.ready()["warnings"] == []
        told = [line for line in moved.system.server.lines if line["message"] == TURNED_ON]
        assert {line["stream"] for line in told} == {
            "PYOCO_WORK", "PYOCO_DLQ", "KV_pyoco_runs", "KV_pyoco_workers", "KV_pyoco_wheel_history",
        }  # fmt: skip
        all_is_there(moved)
        what_waits_is_run(moved)
        assert moved.check() == {} and moved.command("pyoco-client", "--server", moved.system.url, "doctor").stdout


def test_a_user_who_may_not_change_streams_reads_without_the_flag(move: Move) -> None:
    with move("$JS.API.STREAM.UPDATE.>") as moved:
        ready = moved.ready()
        assert ready["status"] == "ready" and "pyoco-server check --mend" in ready["warnings"][0]
        all_is_there(moved)
        worker = what_waits_is_run(moved)
        for process in (moved.system.server, worker):
            told = [line["stream"] for line in process.lines if line["message"] == OFF]
            assert told and len(told) == len(set(told))
        found = moved.check()
        assert list(found) == ["reads_slow"] and "KV_pyoco_runs" in found["reads_slow"]["details"]["streams"]


def test_a_backup_of_it_is_restored_to_a_store_that_works(move: Move, tmp_path: Path) -> None:
    def command(moved: Moved, *arguments: str) -> None:
        done = moved.command("pyoco-server", *arguments)
        assert done.returncode == 0, done.stderr

    with move("$JS.API.STREAM.UPDATE.>") as moved:  # so that what is backed up is as the existing system made it
        command(moved, "backup", str(tmp_path / "old.tar"))
    shutil.rmtree(tmp_path / "ours")
    empty = tmp_path / "empty"
    empty.mkdir()
    with move(data=empty) as moved:
        command(moved, "restore", str(tmp_path / "old.tar"), "--replace", "--while-running")
        streams = moved.ready()["streams"]
        assert all(streams[name]["direct_reads"] for name in ("PYOCO_WORK", "KV_pyoco_runs", "PYOCO_DLQ"))
        what_waits_is_run(moved)


def test_a_nats_of_ours_with_accounts_serves_it(old_files: OldFiles, tmp_path: Path) -> None:
    """There the gateway's own user may not change streams, and ``up`` does it as the administrator."""
    options = ["--nats-store-dir", str(old_files.copy_to(tmp_path / "nats"))]
    keys = {"PYOCO_HTTP_AUTH_MODE": "api_key", "PYOCO_AUTH_PEPPER": PEPPER}
    with running_system(tmp_path, *options, **keys) as system:
        told = {line["stream"] for line in system.server.lines if line["message"] == TURNED_ON}
        assert {"PYOCO_WORK", "KV_pyoco_runs", "KV_pyoco_auth"} <= told
        key = {"X-API-Key": old_files.store.keys[0]["api_key"]}
        assert httpx2.get(f"{system.url}/runs", headers=key, timeout=10).status_code == 200
        assert httpx2.get(f"{system.url}/runs/{old_files.store.failed}", headers=key, timeout=10).status_code == 404


def all_is_there(moved: Moved) -> None:
    """Read what the existing system left, as it showed it itself."""
    store, client = moved.store, moved.system.client
    assert {run["run_id"] for run in client.list_runs(limit=100)} == store.all_runs
    for run_id in store.all_runs:
        found, theirs = client.get_run_with_records(run_id), store.snapshots[run_id]
        same = ("status", "flow_name", "params", "tag", "tags", "tasks", "error", "updated_at")
        assert {name: found[name] for name in same} == {name: theirs[name] for name in same}
        assert {name: record["output"] for name, record in found["task_records"].items()} == {
            name: record.get("output") for name, record in theirs["task_records"].items()
        }
    by_status = {status: len(client.list_runs(status=status)) for status in ("COMPLETED", "FAILED", "CANCELLED")}
    assert by_status == {"COMPLETED": 6, "FAILED": 1, "CANCELLED": 1}
    [letter] = client.list_dead_letters()
    assert (letter["run_id"], letter["reason"], letter["error"]) == (store.failed, "execution_error", "it was to fail")
    [worker] = client.get_workers(scope="all")
    assert (worker["worker_id"], worker["tags"], worker["state"]) == ("old-worker", ["default"], "DISCONNECTED")
    assert (worker["last_run_id"], worker["last_run_status"]) == (store.cancelled, "CANCELLED")
    assert client.cancel_run(store.spare)["status"] == "CANCELLED"
    assert sorted(wheel["name"] for wheel in client.list_wheels()) == sorted(store.wheels)
    assert {event["wheel_name"] for event in client.list_wheel_history()} == set(store.wheels)
    for name in store.wheels:
        got = httpx2.get(f"{moved.system.url}/wheels/{name}", timeout=10)
        assert got.content == (store.folder / name).read_bytes()


def what_waits_is_run(moved: Moved) -> Process:
    """Run what was queued on a worker of ours, and a flow that uses an old wheel."""
    store, system = moved.store, moved.system
    worker = moved.worker()
    records = [system.end(run_id)["task_records"] for run_id in store.queued]
    assert [record[task]["output"] for record, task in zip(records, ("to_text", "to_text", "add", "add"), strict=True)] == ["v=11", "v=21", 107, 207]  # fmt: skip # noqa: E501
    assert system.end(store.cancelling)["status"] == "CANCELLED"
    used = system.run(USES_A_WHEEL, tag="default")
    assert used["task_records"]["triple"]["output"] == 42
    deadline = time.monotonic() + DEADLINE
    while sorted(installed(system)) != sorted(store.wheels):  # told with a heartbeat
        assert time.monotonic() < deadline, installed(system)
        time.sleep(0.05)
    return worker


async def beat_again(url: str, guarded: bool, worker: dict[str, Any]) -> None:
    """Write the old worker's record once more, as if it were an hour old: its bucket drops it after 15 s."""
    seen = {name: worker[name] - 3600 for name in ("last_seen_at", "last_heartbeat_at", "heartbeat_at", "updated_at")}
    record = json.dumps({**worker, **seen}).encode()
    client = await nats.connect(url, **({"user": "u", "password": "p"} if guarded else {}))
    await client.jetstream().publish(f"$KV.pyoco_workers.{worker['worker_id']}", record)
    await client.close()


def installed(system: System) -> list[str]:
    """Return the wheels that our worker says it has."""
    mine = next(one for one in system.client.get_workers(scope="all") if one["worker_id"] == "ours")
    return [wheel["wheel_name"] for wheel in mine["wheel_sync"].get("installed_wheels", [])]
