"""The existing system and ours side by side: each with its own NATS, gateways, workers, keys and runs."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from anyio.from_thread import start_blocking_portal

from pyoco_server.embedded.nats_server import NatsServer
from tests.ports import free_port

from .existing import Existing

BIN = Path(sys.executable).parent
DEADLINE = 40.0
_LOOK_SEC = 0.05
_PATIENCE_SEC = 3.0

FLOWS = """
import time

import pyoco
from pyoco.core.models import Flow


@pyoco.task
def add(x=0):
    return int(x) + 1


@pyoco.task
def text(add):
    return f"v={add}"


@pyoco.task
def breaks(add):
    raise ValueError("out of flour")


@pyoco.task
def never(breaks):
    return 1


@pyoco.task
def nap():
    time.sleep(2)


@pyoco.task
def after(nap):
    return 1


def chain(name, *tasks):
    flow = Flow(name=name)
    for one in tasks:
        flow.add_task(one.task)
    for first, second in zip(tasks, tasks[1:]):
        second.task.dependencies.add(first.task)
        first.task.dependents.add(second.task)
    return flow


def resolve(name):
    if name == "main":
        return chain("main", add, text)
    if name == "fails":
        return chain("fails", add, breaks, never)
    if name == "naps":
        return chain("naps", nap, after)
    raise KeyError(name)
"""


_MAKE_KEYS = """
import contextlib, io, json, sys

from pyoco_server.admin_cli import main

def admin(*words):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(["--nats-url", sys.argv[1], "api-key", *words])
    return json.loads(printed.getvalue())

tenants = {"good": "demo", "same tenant": "demo", "other": "acme", "revoked": "demo"}
made = {name: admin("create", "--tenant", tenant) for name, tenant in tenants.items()}
admin("revoke", "--key-id", made["revoked"]["key_id"])
print(json.dumps(made))
"""


@dataclass
class Side:
    """One of the two systems.

    Attributes:
        name: ``theirs`` or ``ours``.
        url: Its gateway that asks for no key.
        guarded: Its gateway that does.
        nats_url: Its NATS.
        keys: Its API keys by what they are to the tests.
        names: What in its answers is random, and how both sides call it.
        runs: Its runs' ids by what they are to the tests.
        revive: Starts its worker anew. Theirs now and then loses the end of its own heartbeat of a run, and waits for
            it for ever; the run that it had is then done once more.
    """

    name: str
    url: str
    guarded: str
    nats_url: str
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    revive: Callable[[], None] | None = None

    def http(self) -> httpx2.Client:
        """A client; it has no base URL, for there are two gateways."""
        return httpx2.Client(timeout=30)

    def wait_for(self, run: str, *statuses: str, task: str | None = None, ask_to_stop: bool = False) -> None:
        """Wait until a run, or a task of it, has one of these statuses.

        Args:
            run: Which.
            statuses: Any of them.
            task: The task.
            ask_to_stop: Cancel it again and again: their worker may write over the request.
        """
        deadline = time.monotonic() + DEADLINE
        with self.http() as http:
            while True:
                found = http.get(f"{self.url}/runs/{self.runs[run]}").json()
                status = found["status"] if task is None else found["tasks"].get(task)
                if status in statuses:
                    return
                assert time.monotonic() < deadline, f"{self.name}: run {run} is still {status}"
                if ask_to_stop:
                    http.post(f"{self.url}/runs/{self.runs[run]}/cancel")
                time.sleep(_LOOK_SEC)

    def wait_for_rest(self, run: str) -> None:
        """Wait until the worker has told that it is done with a run."""
        deadline = time.monotonic() + DEADLINE
        patience = time.monotonic() + _PATIENCE_SEC
        with self.http() as http:
            while True:
                worker = self._workers(http).get("w1", {})
                if worker.get("state") == "IDLE" and worker.get("last_run_id") == self.runs[run]:
                    return
                assert time.monotonic() < deadline, f"{self.name}: the worker is still {worker}"
                if time.monotonic() > patience and self.revive is not None:
                    self.revive()
                    patience += 3 * _PATIENCE_SEC
                time.sleep(_LOOK_SEC)

    def _workers(self, http: httpx2.Client) -> dict[str, dict[str, Any]]:
        """Return the workers by id; none where the existing system cannot list them, as happens now and then."""
        answer = http.get(f"{self.url}/workers")
        return {one["worker_id"]: one for one in answer.json()} if answer.is_success else {}

    def note_run(self, name: str, run_id: str) -> None:
        """Note a run that was made."""
        self.runs[name] = run_id
        self.names[run_id] = f"<run {name}>"

    def wait_for_wheels(self, worker_id: str, wheel: str) -> None:
        """Wait until a worker has one wheel alone, and told so in a round that changed nothing."""
        deadline = time.monotonic() + DEADLINE
        with self.http() as http:
            while True:
                sync = self._workers(http).get(worker_id, {}).get("wheel_sync", {})
                names = [row["wheel_name"] for row in sync.get("installed_wheels", ())]
                if names == [wheel] and not sync["updated_wheels"] and not sync["removed_wheels"]:
                    return
                assert time.monotonic() < deadline, f"{self.name}: {worker_id} has {sync}"
                time.sleep(_LOOK_SEC)


@contextlib.contextmanager
def side_by_side(existing: Existing, folder: Path) -> Iterator[tuple[Side, Side]]:
    """Start both, theirs first in the answer; stop everything afterwards."""
    with contextlib.ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("asyncio"))
        urls = []
        for name in ("theirs", "ours"):
            own = folder / name
            own.mkdir()
            (own / "flows.py").write_text(FLOWS)
            nats = NatsServer(own / "nats", client_port=-1, http_port=-1)
            stack.enter_context(portal.wrap_async_context_manager(nats))
            urls.append(nats.url)
        both = stack.enter_context(ThreadPoolExecutor(2))
        starting = [
            _start_theirs(existing, folder / "theirs", urls[0]),
            _start_ours(folder / "ours", urls[1]),
        ]
        theirs, ours = both.map(stack.enter_context, starting)
        yield theirs, ours


def _make_ready(side: Side) -> None:
    deadline = time.monotonic() + DEADLINE
    for url in (side.url, side.guarded):
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{url}/health", timeout=5).status_code == 200:
                    break
            assert time.monotonic() < deadline, f"{side.name} does not answer at {url}"
            time.sleep(_LOOK_SEC)


_BEATS = {"PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5"}
_SHORT_WAIT = {"PYOCO_CONSUMER_ACK_WAIT_SEC": "3", "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1"}
"""Their worker now and then loses a job that comes while it stops asking: NATS gives it again after so long."""
_GUARDED = {"PYOCO_HTTP_AUTH_MODE": "api_key"}


@contextlib.contextmanager
def _start_theirs(existing: Existing, folder: Path, nats_url: str) -> Iterator[Side]:
    # Their worker installs wheels into its own environment, which all tests share: pip is told another place.
    python = {"PYTHONPATH": str(folder), "PIP_TARGET": str(folder / "installed"), "PIP_NO_INDEX": "1"}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(existing.server(nats_url, folder))
        guarded = stack.enter_context(existing.server(nats_url, folder, **_GUARDED))
        side = Side("theirs", url, guarded, nats_url, folder)
        _make_ready(side)  # it makes the buckets that the others need
        first, second = _workers(nats_url)
        own = {**python, **_BEATS, **_SHORT_WAIT}
        stack.enter_context(existing.running(*second, folder=folder, **own))
        worker = stack.enter_context(contextlib.ExitStack())
        process = worker.enter_context(existing.running(*first, folder=folder, **own))

        def revive() -> None:
            nonlocal process
            process.kill()
            worker.close()
            process = worker.enter_context(existing.running(*first, folder=folder, **own))

        side.revive = revive

        _make_keys(side, lambda script, url: existing.python(script, url, folder=folder))
        yield side


@contextlib.contextmanager
def _start_ours(folder: Path, nats_url: str) -> Iterator[Side]:
    python = {"PYTHONPATH": str(folder)}
    with contextlib.ExitStack() as stack:
        urls = []
        for name, more in (("open", {}), ("guarded", _GUARDED)):
            port = free_port()
            command = ["pyoco-server", "up", "--port", str(port), "--nats-url", nats_url]
            stack.enter_context(_running(command, folder, PYOCO_STATE_DIR=str(folder / name), **more))
            urls.append(f"http://127.0.0.1:{port}")
        side = Side("ours", *urls, nats_url, folder)
        _make_ready(side)
        for arguments in _workers(nats_url):
            state = str(folder / arguments[4])
            stack.enter_context(_running(list(arguments), folder, PYOCO_STATE_DIR=state, **python, **_BEATS))

        def run(script: str, url: str) -> dict[str, Any]:
            command = [sys.executable, "-c", script, url]
            done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=DEADLINE)
            return dict(json.loads(done.stdout.splitlines()[-1]))

        _make_keys(side, run)
        yield side


def _workers(nats_url: str) -> list[tuple[str, ...]]:
    common = ("pyoco-worker", "--nats-url", nats_url, "--worker-id")
    return [
        (*common, "w1", "--tags", "default", "--flow-resolver", "flows:resolve"),
        (*common, "w2", "--tags", "wheels", "--wheel-sync", "--wheel-sync-interval-sec", "1.5"),
    ]


@contextlib.contextmanager
def _running(command: list[str], folder: Path, **environment: str) -> Iterator[None]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
    with (folder / f"{command[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=folder, env={**kept, **environment}, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _make_keys(side: Side, run: Callable[[str, str], dict[str, Any]]) -> None:
    made = run(_MAKE_KEYS, side.nats_url)
    for name, key in made.items():
        side.keys[name] = key["api_key"]
        side.names[key["key_id"]] = f"<key {name}>"
    wrong = side.keys["good"]
    side.keys["wrong secret"] = wrong[:-2] + ("AA" if wrong[-2:] != "AA" else "BB")
    side.keys["unknown"] = f"pyoco_{'0' * 24}.{'a' * 43}"
    side.keys["no key at all"] = "hello"
