"""A whole system of separate processes on fixed ports, each of which can be killed, stopped, and started again."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx2
import psutil

from pyoco_server.settings.environment import Settings
from tests.acceptance.conftest import DEADLINE, Process
from tests.ports import free_port

from .history import TERMINAL, History, Journal
from .witness import Witness

ACK_WAIT = 3.0
GRACE = 2.0
SETTINGS = {
    "PYOCO_CONSUMER_ACK_WAIT_SEC": f"{ACK_WAIT:g}",
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "0.5",
    "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5",
    "PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC": "3",
    "PYOCO_RUN_HEARTBEAT_INTERVAL_SEC": "0.2",
    "PYOCO_CANCEL_GRACE_PERIOD_SEC": f"{GRACE:g}",
}
TASKS = Path(__file__).with_name("fault_tasks.py")
FLOW = """\
version: 1
flow:
  graph: t
tasks:
  t:
    callable: fault_tasks:{task}
"""

_SHOWN = ("ts", "level", "message", "reason", "run_id", "attempt", "status", "end_reason", "exc_message")
_SHOWN_LINES = 200


def until(holds: Callable[[], Any], what: str, timeout: float = DEADLINE, every: float = 0.05) -> Any:
    """Wait for something outside this process that offers no event; its first true value is the answer."""
    deadline = time.monotonic() + timeout
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        pause(every)
    return value


def pause(seconds: float) -> None:
    """Let a fault last for a while: the time itself is what is tried here, not a wait for something."""
    threading.Event().wait(seconds)


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Member:
    """One process of the system, by name."""

    def __init__(self, name: str, begin: Callable[[], Process], ready: Callable[[Process], Any]) -> None:
        self.name = name
        self._begin = begin
        self._ready = ready
        self.process = begin()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.popen.pid

    @property
    def is_alive(self) -> bool:
        """Tell whether it runs."""
        return self.process.popen.poll() is None

    def ready(self) -> "Member":
        """Wait until it serves."""
        self._ready(self.process)
        return self

    def signal(self, sig: signal.Signals) -> None:
        """Send a signal to it alone."""
        self.process.popen.send_signal(sig)

    def kill(self) -> float:
        """Kill it with SIGKILL; the unix time of its death is the answer."""
        self.process.popen.kill()
        at = time.time()
        self.process.popen.wait(DEADLINE)
        return at

    def stop(self, timeout: float = DEADLINE) -> int:
        """End it in order; the exit code is the answer."""
        return self.process.stop(timeout=timeout)

    def start(self) -> "Member":
        """Start it again, as it was."""
        assert not self.is_alive, f"{self.name} still runs"
        self.process = self._begin()
        return self


class Cluster:
    """nats-server, gateways and workers, with clients that journal what they are told.

    Args:
        folder: Everything lies here.
        seed: Decides whatever is random.
        store: Where nats-server keeps its data; ``None`` for a directory in ``folder``.
        environment: Variables over the common short times.
    """

    def __init__(self, folder: Path, seed: int, store: Path | None = None, **environment: str) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.environment = {**SETTINGS, **environment}
        self.journal = Journal(folder / "journal.jsonl")
        shutil.copy(TASKS, folder)
        self.store = store or folder / "nats"
        self.nats_port = free_port()
        self.members: dict[str, Member] = {}
        self._closing = contextlib.ExitStack()
        self.http = self._closing.enter_context(httpx2.Client(timeout=15))
        self.urls: list[str] = []
        self.partitioned = False
        self.handed_back: dict[str, int] = {}
        self._start_nats()
        self.witness = self._closing.enter_context(Witness(Settings(_env_file=None, nats_url=self.nats_url)).watching())

    @property
    def nats_url(self) -> str:
        """Where NATS is."""
        return f"nats://127.0.0.1:{self.nats_port}"

    @property
    def url(self) -> str:
        """Where the first gateway is."""
        return self.urls[0]

    def member(self, name: str, begin: Callable[[], Process], ready: Callable[[Process], Any]) -> Member:
        """Start a process that belongs to the system."""
        self.members[name] = Member(name, begin, ready)
        return self.members[name]

    def gateway(self, name: str = "gateway", nats_url: str | None = None) -> Member:
        """Start a gateway and wait until it is ready."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        place = self.folder / name
        place.mkdir()
        arguments = ["pyoco-server", "--port", str(port), "--nats-url", nats_url or self.nats_url]
        self.urls.append(url)
        return self.member(
            name,
            lambda: Process(arguments, place, **self.environment),
            lambda _: until(lambda: self.is_ready(url), f"{name} is ready"),
        ).ready()

    def worker(
        self, *arguments: str, name: str = "w", tags: str = "cpu", nats_url: str | None = None, **environment: str
    ) -> Member:
        """Start a worker and wait until it serves."""
        command = ["pyoco-worker", "--nats-url", nats_url or self.nats_url, "--worker-id", name, "--tags", tags]
        return self.member(
            name,
            lambda: Process([*command, *arguments], self.folder, **{**self.environment, **environment}),
            lambda process: process.wait_for("worker ready"),
        ).ready()

    def is_ready(self, url: str | None = None) -> bool:
        """Tell whether a gateway says that it is ready."""
        try:
            return bool(self.http.get(f"{url or self.url}/ready", timeout=3).status_code == 200)
        except httpx2.HTTPError:
            return False

    def post(
        self,
        task: str,
        params: dict[str, Any] | None = None,
        *,
        tag: str = "cpu",
        key: str | None = None,
        url: str | None = None,
        flow: str = FLOW,
        **form: Any,
    ) -> httpx2.Response:
        """Submit once; an answer with a run_id is journalled.

        Args:
            task: A function of ``fault_tasks``.
            params: What it is given.
            tag: The tag.
            key: An idempotency key.
            url: Another gateway than the first.
            flow: The flow file, with a place for the task.
            form: More fields, such as ``max_attempts``.
        """
        answer = self.http.post(
            f"{url or self.url}/runs/yaml",
            files={"workflow": ("flow.yaml", flow.format(task=task).encode())},
            data={"flow_name": task, "tag": tag, "params": json.dumps(params or {}), **form},
            headers={"Idempotency-Key": key} if key else {},
        )
        if answer.status_code == 200:
            self.journal.note("answered", answer.json()["run_id"], key=key, task=task)
        return answer

    def submit(self, task: str, params: dict[str, Any] | None = None, **options: Any) -> str:
        """Submit where it must work; the run_id is the answer."""
        answer = self.post(task, params, **options)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["run_id"])

    def cancel(self, run_id: str) -> str:
        """Ask to cancel; the status in the answer is given and journalled."""
        answer = self.http.post(f"{self.url}/runs/{run_id}/cancel")
        assert answer.status_code == 200, answer.text
        self.journal.note("cancel", run_id, status=answer.json()["status"])
        return str(answer.json()["status"])

    def get(self, run_id: str) -> dict[str, Any]:
        """Read a run."""
        answer = self.http.get(f"{self.url}/runs/{run_id}?include=full")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def started(self, run_id: str, attempt: int = 1, timeout: float = DEADLINE) -> dict[str, Any]:
        """Wait until an attempt's task has noted its start."""

        def look() -> dict[str, Any] | None:
            found = [line for line in self.journal.read() if line["what"] == "start" and line["run_id"] == run_id]
            return next((line for line in found if line["attempt"] == attempt), None)

        return dict(until(look, f"attempt {attempt} of {run_id} starts", timeout))

    def end(self, run_id: str, timeout: float = DEADLINE) -> dict[str, Any]:
        """Wait until the witness has seen a run's end."""
        return self.ends([run_id], timeout)[0]

    def ends(self, run_ids: Iterable[str], timeout: float = DEADLINE) -> list[dict[str, Any]]:
        """Wait until the witness has seen the end of all of them."""
        newest, ids = self.witness.newest, list(run_ids)
        deadline = time.monotonic() + timeout
        while open_ := [run_id for run_id in ids if newest.get(run_id, {}).get("status") not in TERMINAL]:
            if time.monotonic() > deadline:
                shown = [(run_id, newest.get(run_id, {}).get("status")) for run_id in open_[:5]]
                raise AssertionError(f"{len(open_)} of {len(ids)} runs have not ended within {timeout:g} s: {shown}")
            pause(0.02)
        return [newest[run_id] for run_id in ids]

    def open_gate(self, gate: str) -> None:
        """Let tasks that wait for a file go on."""
        (self.folder / gate).touch()

    def history(self) -> History:
        """Collect what is known now."""
        return History(
            self.journal.read(), self.witness.records(), list(self.witness.sightings), self.partitioned,
            self.handed_back,
        )  # fmt: skip

    def letters(self) -> list[dict[str, Any]]:
        """Read every dead letter."""
        return self.witness.letters()

    def show_logs(self) -> None:
        """Print what every process has said: pytest shows it beside a failure."""
        for name, member in self.members.items():
            print(f"--- {name}: exit code {member.process.popen.poll()}")
            for line in member.process.lines[-_SHOWN_LINES:]:
                print(*(f"{field}={line[field]}" for field in _SHOWN if field in line))

    def close(self) -> None:
        """Kill everything that still runs; what its death leaves behind must end by itself.

        Raises:
            AssertionError: a process of some run is still there.
        """
        for name in sorted(self.members, key=lambda name: (name.startswith("nats"), "gateway" in name)):
            process = self.members[name].process.popen
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(DEADLINE)
        self._closing.close()
        until(lambda: not running_below(self.folder), "no process is left behind", 10)

    def _start_nats(self) -> None:
        self.nats = self.member("nats", self._begin_nats, self._nats_answers).ready()

    def _begin_nats(self) -> Process:
        store = str(self.store)
        arguments = ["nats-server", "-js", "-a", "127.0.0.1", "-p", str(self.nats_port), "-sd", store]
        return Process(arguments, self.folder)

    def _nats_answers(self, process: Process) -> None:
        def look() -> bool:
            assert process.popen.poll() is None, f"nats-server ended: {process.lines}"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.nats_port)) == 0

        until(look, "nats-server listens", every=0.01)


def descendants(pid: int) -> list[psutil.Process]:
    """Give every process below one, now."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def wait_dead(pids: Iterable[int], timeout: float) -> float:
    """Wait until none of the processes runs; the seconds that it took are the answer."""
    began = time.monotonic()
    pids = list(pids)
    until(lambda: not any(alive(pid) for pid in pids), f"{pids} are dead", timeout, every=0.01)
    return time.monotonic() - began


def running_below(folder: Path) -> list[str]:
    """Name every process whose working directory lies in a folder: what a system has left behind."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid():
                left.append(f"{process.pid}: {' '.join(process.cmdline())[:120]}")
    return left
