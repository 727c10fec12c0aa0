"""Keys on, and ``up --with-nats``: other commands work as before, and a task gets nowhere."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil
import pytest

from pyoco_server.client.http import PyocoHttpClient
from tests.ports import free_port
from tests.wheels import make_wheel

from .conftest import BIN, DEADLINE, TUTORIAL, Process, System, running_system
from .wheel_uploads import upload

pytestmark = pytest.mark.slow

KEYS = {"PYOCO_HTTP_AUTH_MODE": "api_key"}
FAST = {"PYOCO_CONSUMER_ACK_WAIT_SEC": "3", "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1"}
# A task of our user, on our machine, with our Python: what it returns is what it got.
THIEF = """\
import asyncio, os, socket, sys, json

def t():
    port = PORT
    return {"got": [name for name, attempt in TRIES.items() if _got(attempt, port)]}

def _got(attempt, port):
    try:
        return bool(attempt(port))
    except BaseException as error:
        print(attempt.__name__, repr(error), file=sys.stderr)
        return False

def without(port):
    return _write(port)

def by_environment(port):
    named = {name: value for name, value in os.environ.items() if name.startswith("PYOCO")}
    return any(word in str(named) for word in ("SUA", "PASSWORD", "TOKEN", "PEPPER"))

def ask(port, role="admin"):
    from pyoco_server.settings.nats_signer import LocalSigner, NatsRole
    return LocalSigner().sign(NatsRole(role), "nonce", "127.0.0.1", port)

def as_worker(port):
    return ask(port, "worker")

def as_a_command(port):
    import subprocess
    command = [os.path.join(os.path.dirname(sys.executable), "pyoco-server-admin"), "--nats-url",
               f"nats://127.0.0.1:{port}", "api-key", "create", "--tenant", "mine", "--role", "admin"]
    made = subprocess.run(command, capture_output=True, text=True)
    print(made.stderr, file=sys.stderr)
    return made.returncode == 0

def as_a_daemon(port):
    read, write = os.pipe()
    if not os.fork():
        os.setsid()
        middle = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == middle:
            pass
        try:
            os.write(write, b"1" if ask(port) else b"0")
        except BaseException:
            os.write(write, b"0")
        os._exit(0)
    return os.read(read, 1) == b"1"

def _write(port):
    import nats
    async def write():
        client = await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False, connect_timeout=3)
        await client.publish("$KV.pyoco_auth.aaaaaaaaaaaaaaaaaaaaaaaa", b"{}")
        await client.flush()
        return True
    return asyncio.run(write())

TRIES = {one.__name__: one for one in (without, by_environment, ask, as_worker, as_a_command, as_a_daemon)}
"""
_T = TypeVar("_T")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("guarded")
    with running_system(folder, "--with-worker", "--worker-tags", "own", **KEYS, **FAST) as running:
        key = created(running, "demo")["api_key"]
        with PyocoHttpClient(running.url, api_key=key, retry_sec=15) as client:
            running.client = client
            yield running


def command(system: System, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in another directory, as from another terminal: nothing is set but where NATS is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
    (elsewhere := system.folder / "elsewhere").mkdir(exist_ok=True)
    done = subprocess.run(
        [BIN / arguments[0], *arguments[1:]], cwd=elsewhere, capture_output=True, text=True, timeout=60,
        env={**kept, "PYOCO_NATS_URL": system.nats_url, **environment},
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def created(system: System, tenant: str, *options: str) -> dict[str, Any]:
    made = command(system, "pyoco-server-admin", "api-key", "create", "--tenant", tenant, *options)
    return dict(json.loads(made.stdout))


def records(system: System) -> str:
    return command(system, "pyoco-server-admin", "api-key", "list").stdout


def within(holds: Callable[[], _T], timeout: float = DEADLINE) -> _T:
    deadline = time.monotonic() + timeout
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return found


def part(system: System, name: str) -> psutil.Process:
    return next(child for child in psutil.Process(system.server.popen.pid).children() if name in str(child.cmdline()))


@pytest.mark.slow
def test_commands_of_other_terminals_work_as_before(system: System, tmp_path: Path) -> None:
    system.worker(worker_id="cpu-1", tags="cpu")
    for tag in ("cpu", "own"):
        assert system.run(TUTORIAL, tag=tag)["status"] == "COMPLETED"
    assert "no problems found" in command(system, "pyoco-server", "check").stdout
    backup = tmp_path / "b.tar"
    told = json.loads(command(system, "pyoco-server", "backup", str(backup)).stdout)
    assert told["streams"]["KV_pyoco_auth"] >= 1 and told["streams"]["KV_pyoco_runs"] >= 2


@pytest.mark.parametrize("tag", ["own", pytest.param("theirs", marks=pytest.mark.slow)])
def test_a_task_gets_no_credential_and_writes_no_key(system: System, tag: str) -> None:
    if tag == "theirs":
        system.worker(worker_id="their", tags=tag)
    before = records(system)
    run = system.run(system.flow(THIEF.replace("PORT", system.nats_url.rpartition(":")[2])), tag=tag)
    assert (run["status"], run["task_records"]["t"]["output"]) == ("COMPLETED", {"got": []}), run["error"]
    assert records(system) == before
    text = "".join(path.read_text(errors="replace") for path in system.folder.rglob("nats-server.conf"))
    assert "nkey" in text and "SUA" not in text
    for process in (system.server.popen.pid, part(system, "cli.worker").pid):
        assert "SUA" not in str(psutil.Process(process).environ()) + str(psutil.Process(process).cmdline())


@pytest.mark.slow
def test_a_credential_that_is_missing_says_what_to_do(system: System) -> None:
    other = subprocess.run(
        [BIN / "pyoco-worker", "--nats-url", f"nats://127.0.0.1:{system.nats_url.rpartition(':')[2]}", "--run-once"],
        cwd=system.folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYOCO_NATS_USER": "worker", "PYOCO_NATS_PASSWORD": "guessed"},
    )  # fmt: skip
    assert other.returncode == 4 and "refuses the credential in PYOCO_NATS_USER" in other.stderr


@pytest.mark.slow
def test_what_dies_comes_back_and_runs_go_on(system: System) -> None:
    for name, told in (("cli.worker", "worker worker"), ("nats-server.conf", "nats-server"), ("cli.worker", None)):
        victim = part(system, name if name != "nats-server.conf" else "nats-server")
        victim.kill()
        victim.wait(10)
        again = within(lambda name=name, victim=victim: [
            child for child in psutil.Process(system.server.popen.pid).children()
            if child.pid != victim.pid and child.status() != psutil.STATUS_ZOMBIE
            and ("cli.worker" in str(child.cmdline())) == (name == "cli.worker")
        ])  # fmt: skip
        assert len(again) == 1
        if told:
            system.server.wait_for("a part is started again")
        within(lambda: httpx2.get(f"{system.url}/ready").status_code == 200)
        assert system.run(TUTORIAL, tag="own")["status"] == "COMPLETED"
    key = created(system, "ops", "--role", "operator")["api_key"]
    ready = httpx2.get(f"{system.url}/ready", headers={"X-API-Key": key}).json()
    deaths = {told["part"]: (told["deaths"], told["running"], told["last_exit"]) for told in ready["parts"]}
    assert deaths == {"nats-server": (1, True, "killed by SIGKILL"), "worker worker": (2, True, "killed by SIGKILL")}
    assert len(ready["warnings"]) == 2
    assert "parts" not in httpx2.get(f"{system.url}/ready").json()
    found = httpx2.get(f"{system.url}/doctor", headers={"X-API-Key": key}).json()["findings"]
    codes = {finding["code"]: finding for finding in found}
    assert codes["part_died"]["details"]["exit"] == "killed by SIGKILL"
    assert codes["keys_without_pepper"]["severity"] == "info"
    assert not {"nats_lets_all_in", "keys_not_apart"} & set(codes)


@pytest.mark.slow
def test_a_worker_that_refuses_to_run_stops_the_start(tmp_path: Path) -> None:
    options = ["--with-worker", "--worker-flow-resolver", "no_such_module:nothing"]
    arguments = "up --with-nats --nats-client-port -1 --nats-http-port -1 --port 0".split()
    server = Process(["pyoco-server", *arguments, *options], tmp_path)
    assert server.popen.wait(DEADLINE) == 1
    within(lambda: any("refuses to run" in line["message"] for line in server.lines))


@pytest.mark.slow
def test_keys_on_off_and_on_again_lose_nothing(tmp_path: Path) -> None:
    """Streams change their places; a worker of another terminal finds its way with each new start."""
    ports = ["--nats-client-port", str(client := free_port()), "--nats-http-port", "-1", "--port", "0"]
    wheel = make_wheel(tmp_path, "kept_lib", "1.0", {"kept_lib/__init__.py": "def t():\n    return 'kept'\n"})
    runs, keys, worker = [], [], None
    try:
        for turn, environment in enumerate([{}, KEYS, {}, KEYS]):
            server = Process(["pyoco-server", "up", "--with-nats", *ports], tmp_path, **environment)
            try:
                up = server.wait_for("pyoco-server is up")
                options: dict[str, Any] = {"retry_sec": 15}
                system = System(tmp_path, up["url"], f"nats://127.0.0.1:{client}", server, PyocoHttpClient(up["url"]))
                if environment:
                    keys.append(created(system, "demo", "--role", "operator"))
                    assert len(json.loads(records(system))) == len(keys)
                    options["api_key"] = keys[0]["api_key"]
                with PyocoHttpClient(up["url"], **options) as http:
                    system.client = http
                    if turn == 0:
                        upload(system, wheel)
                        worker = system.worker("--wheel-sync", worker_id="lasting", tags="cpu")
                    flow = "version: 1\nflow:\n  graph: t\ntasks:\n  t:\n    callable: kept_lib:t\n"
                    run = system.run(flow)
                    assert (run["status"], run["task_records"]["t"]["output"]) == ("COMPLETED", "kept")
                    runs.append(run["run_id"])
                    assert all(http.get_run(run_id)["status"] == "COMPLETED" for run_id in runs)
                    assert [entry["name"] for entry in http.list_wheels()] == [wheel.name]
            finally:
                server.stop()
        # The same store, without a word of keys: it is guarded all the same; and its backup finds its way.
        for words in ("backup --with-nats x.tar", "restore --with-nats --nats-store-dir new x.tar"):
            done = subprocess.run(
                [BIN / "pyoco-server", *words.split()], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                env={**os.environ, **(KEYS if "restore" in words else {})},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            streams = json.loads(done.stdout)["streams"]
            assert (streams["KV_pyoco_auth"], streams["KV_pyoco_runs"]) == (len(keys), len(runs))
        for store in (".pyoco/nats", "new"):
            kept = {path.parts[-3] + "/" + path.name for path in (tmp_path / store).glob("data/jetstream/*/streams/*")}
            assert {"KEYS/KV_pyoco_auth", "APP/KV_pyoco_runs"} < kept and not any("$G" in one for one in kept)
    finally:
        if worker is not None:
            worker.stop(signal.SIGKILL)
