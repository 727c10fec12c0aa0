"""A store that the existing system made and worked with, and then was stopped: what somebody moves to ours.

It holds seven finished runs (one of them failed, which left a dead letter), four that wait (two flow files, two flows
of a resolver with params) and a spare one, one that was cancelled while it ran and one while it waited, two wheels,
three keys of two tenants (one revoked), and its worker's record, which expires 15 s after the last heartbeat.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from pyoco_server.embedded.nats_server import NatsServer
from tests.wheels import make_wheel

from .existing import Existing

PEPPER = "a-pepper-of-the-old-days"
"""What its keys are sealed with: PYOCO_AUTH_PEPPER."""
RESOLVER = "flows.py:resolve_flow"
"""The flows that it ran by name, ``sum`` and ``hold``, in the store's folder."""
FLOWS = """
import os
import time

import pyoco


@pyoco.task
def add(ctx):
    return int(ctx.params["a"]) + int(ctx.params["b"])


@pyoco.task
def hold(ctx):
    for _ in range(400):
        if os.path.exists("released"):
            return None
        time.sleep(0.05)


@pyoco.task
def never(ctx):
    return None


@pyoco.task
def fail(ctx):
    raise ValueError("it was to fail")


def resolve_flow(name):
    flow = pyoco.Flow(name=name)
    flow >> {"sum": add, "hold": hold, "fail": fail}[name]
    if name == "hold":
        flow >> never
    return flow
"""
WORKFLOW = """version: 1
flow:
  graph: |
    add_one >> to_text
  defaults: {x: XXX}
tasks:
  add_one: {callable: "pyoco_server._workflow_test_tasks:add_one", inputs: {x: $ctx.params.x}}
  to_text: {callable: "pyoco_server._workflow_test_tasks:to_text", inputs: {add_one: $node.add_one.output}}
"""
_WHEEL_TASKS = "def triple(x=0):\n    return 3 * int(x)\n\n\ndef register(registry):\n    pass\n"

_WORK = """
import json, sys, time
from pyoco_server import PyocoHttpClient

url, told = sys.argv[1], json.loads(sys.argv[2])
client = PyocoHttpClient(url)

def until_there(ready):
    for _ in range(400):
        try:
            if ready():
                return
        except Exception:
            pass  # it is not there yet
        time.sleep(0.05)
    raise SystemExit("its server or its worker does not come up")

until_there(lambda: client._client.get("/health").status_code == 200)

def ended(run_id, *states):
    for _ in range(120):
        status = client.get_run(run_id)["status"]
        if status in states:
            return
        time.sleep(0.05)
    raise SystemExit(f"{run_id} is {status}, not {states}")

TERMINAL = ("COMPLETED", "FAILED", "CANCELLED")
made = told["made"]
if told["part"] == "submit":
    for x in range(3):
        made["finished"].append(client.submit_run_yaml(
            told["workflow"].replace("XXX", str(x)), flow_name="main", tag="default")["run_id"])
    for b in range(3):
        made["finished"].append(client.submit_run("sum", {"a": 40, "b": b}, tags=["night", "sums"])["run_id"])
    made["failed"] = client.submit_run("fail", {})["run_id"]
    made["finished"].append(made["failed"])
    made["cancelled"] = client.submit_run("hold", {})["run_id"]
elif told["part"] == "work":
    for run_id in made["finished"]:
        ended(run_id, *TERMINAL)
    ended(made["cancelled"], "RUNNING")
    client.cancel_run(made["cancelled"])
    asked_at = time.time()
    for _ in range(400):  # a worker of theirs cancels between two tasks, once it has heard of it
        if client.get_run(made["cancelled"])["heartbeat_at"] > asked_at + 0.3:
            break
        time.sleep(0.05)
    open("released", "w").close()
    ended(made["cancelled"], "CANCELLED")
    for path in told["wheels"]:
        name = path.rpartition("/")[2]
        made["wheels"].append(client.upload_wheel(filename=name, data=open(path, "rb").read())["name"])
    for _ in range(20):  # its lists sometimes fail, because nats-py's list of keys does
        try:
            made["workers"] = client.get_workers(scope="all")
            break
        except Exception:
            time.sleep(0.1)
else:
    for x in (10, 20):
        made["queued"].append(client.submit_run_yaml(
            told["workflow"].replace("XXX", str(x)), flow_name="main", tag="default")["run_id"])
    for a in (100, 200):
        made["queued"].append(client.submit_run("sum", {"a": a, "b": 7})["run_id"])
    made["spare"] = client.submit_run("sum", {"a": 1, "b": 2})["run_id"]
    made["cancelling"] = client.submit_run("sum", {"a": 1, "b": 1})["run_id"]
    client.cancel_run(made["cancelling"])
    runs = [*made["finished"], *made["queued"], made["spare"], made["cancelled"], made["cancelling"]]
    made["snapshots"] = {run_id: client.get_run_with_records(run_id) for run_id in runs}
client.close()
print(json.dumps(made))
"""

_TRIES = 4
_HASTE = {
    "PYOCO_RUN_HEARTBEAT_INTERVAL_SEC": "0.1",
    # What a worker that stalled had is delivered again soon.
    "PYOCO_CONSUMER_ACK_WAIT_SEC": "2.0",
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "0.5",
}
_PATIENCE = """
import asyncio, sys
import nats

async def main():
    client = await nats.connect(sys.argv[1])
    js = client.jetstream()
    config = (await js.consumer_info("PYOCO_WORK", "pyoco_workers_default")).config
    config.ack_wait = 30.0
    await js.add_consumer("PYOCO_WORK", config)
    await client.close()

asyncio.run(main())
print("null")
"""
"""Gives its consumer the AckWait back that it has by default."""


@dataclass(frozen=True)
class OldStore:
    """What is in it.

    Attributes:
        folder: Where its commands ran; ``flows.py`` is there.
        finished: The runs that have ended, in the order of their submission: ``main`` of the flow file with x = 0, 1, 2
            (outputs ``v=1`` …), ``sum`` with 40 + 0, 1, 2, and ``failed``.
        failed: The one of them that failed.
        queued: The runs that wait: ``main`` with x = 10, 20, and ``sum`` with 100 + 7 and 200 + 7.
        spare: One more that waits, for a test to cancel.
        cancelled: A run that was cancelled while it ran.
        cancelling: A run that waits and is to be cancelled.
        wheels: The names of its wheels: ``old_tasks`` with ``old_tasks:triple``, and ``old_extra``.
        keys: Its three API keys as ``create`` printed them; the last one is revoked.
        snapshots: All runs as its own server shows them, with their records.
        workers: Its workers, as its own server listed them while they were there.
    """

    folder: Path
    finished: list[str]
    failed: str
    queued: list[str]
    spare: str
    cancelled: str
    cancelling: str
    wheels: list[str]
    keys: list[dict[str, str]]
    snapshots: dict[str, dict[str, Any]]
    workers: list[dict[str, Any]]

    @property
    def all_runs(self) -> set[str]:
        """Every run."""
        return {*self.finished, *self.queued, self.spare, self.cancelled, self.cancelling}


def make_old_store(existing: Existing, nats_url: str, folder: Path) -> OldStore:
    """Let the existing system make a store in an empty NATS and work with it; nothing of it runs afterwards.

    Args:
        existing: The existing system.
        nats_url: The NATS.
        folder: Where its commands run.
    """
    folder.mkdir(exist_ok=True)
    (folder / "flows.py").write_text(FLOWS)
    wheels = [
        make_wheel(
            folder, "old-tasks", "1.0.0", {"old_tasks/__init__.py": _WHEEL_TASKS},
            entry_points={"old": "old_tasks:register"},
        ),
        make_wheel(folder, "old-extra", "2.1.0"),
    ]  # fmt: skip
    told = {"workflow": WORKFLOW, "wheels": [str(wheel) for wheel in wheels]}
    made: dict[str, Any] = {"finished": [], "queued": [], "wheels": []}
    with existing.server(nats_url, folder, PYOCO_AUTH_PEPPER=PEPPER) as url:

        def do(part: str) -> dict[str, Any]:
            asked = json.dumps({**told, "part": part, "made": made})
            done = existing.run("python", "-c", _WORK, url, asked, folder=folder, check=False)
            assert done.returncode == 0, f"{part}: {done.stderr}"
            return dict(json.loads(done.stdout.splitlines()[-1]))

        made = do("submit")
        worker = ["--nats-url", nats_url, "--worker-id", "old-worker", "--flow-resolver", RESOLVER]
        for left in reversed(range(_TRIES)):  # it sometimes stalls at its start: nats-py's fetch does
            with existing.running("pyoco-worker", *worker, folder=folder, **_HASTE):
                try:
                    made = do("work")
                    break
                except AssertionError:
                    if not left:
                        raise
        existing.python(_PATIENCE, nats_url, folder=folder)
        made = do("leave")
    return OldStore(folder=folder, keys=_make_keys(existing, nats_url, folder), **made)


@dataclass(frozen=True)
class OldFiles:
    """Such a store at rest: what its NATS has on the disk, with no server on it.

    Attributes:
        store: What is in it.
        data: NATS's folder.
    """

    store: OldStore
    data: Path

    def copy_to(self, folder: Path) -> Path:
        """Copy NATS's folder, for a nats-server that changes it; return the copy."""
        return Path(shutil.copytree(self.data, folder))


def make_old_files(existing: Existing, folder: Path) -> OldFiles:
    """Make a store in a NATS of its own, and stop that.

    Args:
        existing: The existing system.
        folder: Where all of it lies.
    """
    nats = NatsServer(folder / "nats", client_port=-1, http_port=-1)
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(nats):
        store = make_old_store(existing, nats.url, folder / "old")
    return OldFiles(store, folder / "nats")


def _make_keys(existing: Existing, nats_url: str, folder: Path) -> list[dict[str, str]]:
    def admin(*arguments: str) -> Any:
        command = ["pyoco-server-admin", "--nats-url", nats_url, "api-key", *arguments]
        return json.loads(existing.run(*command, folder=folder, PYOCO_AUTH_PEPPER=PEPPER).stdout)

    keys = [admin("create", "--tenant", tenant) for tenant in ("acme", "acme", "other")]
    admin("revoke", "--key-id", keys[-1]["key_id"])
    return keys
