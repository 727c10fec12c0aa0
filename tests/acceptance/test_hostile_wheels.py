"""A hundred and more hostile wheels through a real gateway to real workers: refused, or harmless; good ones go on."""

import asyncio
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.wheels import WheelStore
from tests.hostile_wheels import HOSTILE, MEBI
from tests.wheels import make_wheel, wheel_members

from .conftest import Process, System, running_system
from .wheel_uploads import flow_of, installed, outputs, until_wheels, upload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FAST = {"PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5", "PYOCO_WHEEL_SYNC_INTERVAL_SEC": "60"}
OFFER = {"entry_points": {"p": "task_lib:hook"}}
CODE = "def t():\n    return {version!r}\ndef hook(registry):\n    registry.register_callable(t, name='n')\n"


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        yield running


def library(folder: Path, version: str) -> Path:
    return make_wheel(folder, "task-lib", version, {"task_lib.py": CODE.format(version=version)}, **OFFER)


def send(system: System, path: Path) -> httpx2.Response:
    with path.open("rb") as file:
        return httpx2.post(f"{system.url}/wheels", files={"wheel": (path.name, file)}, timeout=120)


def store(system: System, *paths: Path) -> None:
    """Store wheels as another program does that knows no checks."""

    async def put() -> None:
        connection = await Connection(Settings(_env_file=None, nats_url=system.nats_url), "test").start()
        try:
            assert await connection.wait_up(10)
            for path in paths:
                with path.open("rb") as file:
                    await WheelStore(connection).put(path.name, file)
        finally:
            await connection.close()

    asyncio.run(put())


def bombs(folder: Path) -> list[Path]:
    """Wheels of 10 MB and less whose metadata fill a memory."""
    made = []
    for name, size in (("entry_points.txt", 900), ("METADATA", 400), ("RECORD", 400), ("top_level.txt", 400)):
        package = f"bomb_{name.partition('.')[0].lower()}"
        info = f"{package}-1.dist-info"
        path = folder / f"{package}-1-py3-none-any.whl"
        head = b"[pyoco.tasks]\nx = y:z\n" if name == "entry_points.txt" else b""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr(zipfile.ZipInfo(f"{package}/noise"), os.urandom(9 * MEBI))
            for member, content in {**wheel_members(package, "1"), f"{info}/RECORD": ""}.items():
                if member != f"{info}/{name}":
                    archive.writestr(member, content)
            with archive.open(f"{info}/{name}", "w", force_zip64=True) as file:
                file.write(head)
                for _ in range(size):
                    file.write(b"#" * MEBI)
        made.append(path)
    return made


def peak(process: Process) -> int:
    """Return the most memory that a process has had (bytes)."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@contextmanager
def children_watched(process: Process) -> Iterator[list[int]]:
    """Return the most memory that any child of a process has while this lasts (bytes)."""
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for child in psutil.Process(process.popen.pid).children(recursive=True):
                try:
                    most[0] = max(most[0], child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def test_bombs_fill_no_memory(system: System, tmp_path: Path) -> None:
    worker = system.worker("--wheel-sync", **FAST)
    paths = bombs(tmp_path)
    before = peak(system.server), peak(worker)
    with children_watched(system.server) as children:
        for path in paths:
            answer = send(system, path)
            assert answer.status_code == 422, answer.text
            assert "bytes; " in answer.text
            assert ".dist-info/" in answer.text
    gateway = peak(system.server) - before[0]
    with children_watched(worker) as loaders:
        store(system, *paths)
        upload(system, library(tmp_path, "1"))
        found = until_wheels(system, "w", lambda found: "task-lib==1" in installed(found), 60)
    assert {item["wheel_name"] for item in found["skipped_incompatible"]} == {path.name for path in paths}
    assert outputs(system.run(flow_of("task_lib:t"))) == ["1"]
    grown = peak(worker) - before[1]
    print(f"\ngateway: +{gateway >> 20} MiB, its children (NATS too) at most {children[0] >> 20} MiB; "
          f"worker: +{grown >> 20} MiB, its children at most {loaders[0] >> 20} MiB")  # fmt: skip
    assert gateway < 64 * MEBI
    assert grown < 64 * MEBI
    assert loaders[0] < 400 * MEBI


def test_all_of_them(system: System, tmp_path: Path) -> None:
    """What the gateway lets in, and then also what it refuses, stored by another program."""
    worker = system.worker("--wheel-sync", **FAST, PYOCO_WHEEL_INSTALL_TIMEOUT_SEC="60")
    folder = tmp_path / "wheels"
    folder.mkdir()
    refused = []
    for number, case in enumerate(HOSTILE):
        path = case.write(folder, f"h{number}")
        answer = send(system, path)
        assert answer.status_code == (200 if case.said is None else 422), (case.name, answer.text)
        if case.said is not None:
            refused.append(path)
            assert case.said in answer.json()["detail"], case.name
    upload(system, library(tmp_path, "1"))
    assert outputs(system.run(flow_of("task_lib:t"))) == ["1"]
    store(system, *refused)
    upload(system, library(tmp_path, "2"))
    found = until_wheels(system, "w", lambda found: "task-lib==2" in installed(found), 120)
    assert outputs(system.run(flow_of("task_lib:t"))) == ["2"]
    left_out = {item["wheel_name"]: item["text"] for item in found["skipped_incompatible"]}
    assert {path.name for path in refused if "py3" in path.name} <= left_out.keys()
    assert worker.popen.poll() is None
    roots = {path.name for path in system.folder.iterdir()}
    assert not roots & {"x", "tmp", "bin", "etc"}
    assert not Path("/tmp/x").exists()  # what one of them tries
    [environment] = {
        path for path in (system.folder / ".pyoco/wheels/envs").iterdir() if found["environment"] in str(path)
    }
    assert not [path for path in environment.rglob("*") if path.is_symlink() or path.stat().st_mode & 0o6222]
    assert not (environment / "sitecustomize.py").exists()


def test_a_wheel_that_takes_anothers_place_is_told(system: System, tmp_path: Path) -> None:
    system.worker("--wheel-sync", **FAST)
    upload(system, library(tmp_path, "1"))
    attack = make_wheel(tmp_path, "attacker", "1", {"task_lib.py": "def t():\n    return 'stolen'\n"})
    upload(system, attack)
    assert outputs(system.run(flow_of("task_lib:t"))) == ["1"]
    found = until_wheels(system, "w", lambda found: found["outcome"] == "partial")
    assert all(text in found["last_error"] for text in (attack.name, "task_lib-1-py3-none-any.whl", "'task_lib.py'"))
    upload(system, library(tmp_path, "2"))  # newer than the attack, but of the package that was there first
    httpx2.delete(f"{system.url}/wheels/task_lib-1-py3-none-any.whl")
    assert outputs(system.run(flow_of("task_lib:t"))) == ["2"]
    fresh = system.worker("--wheel-sync", "--wheel-sync-dir", str(tmp_path / "fresh"), worker_id="f", tags="f", **FAST)
    assert outputs(system.run(flow_of("task_lib:t"), tag="f")) == ["2"]
    assert fresh.popen.poll() is None


def test_a_task_that_changes_the_wheels_changes_no_later_run(system: System, tmp_path: Path) -> None:
    code = (
        "import os, task_lib\ndef t():\n    path = task_lib.__file__\n    os.chmod(path, 0o644)\n"
        "    open(path, 'w').write(\"def t():\\n    return 'stolen'\\n\")\n"
    )
    worker = system.worker("--wheel-sync", **FAST)
    upload(system, library(tmp_path, "1"))
    upload(system, make_wheel(tmp_path, "thief", "1", {"thief.py": code}))
    assert system.run(flow_of("thief:t"))["status"] == "COMPLETED"
    run = system.run(flow_of("task_lib:t"))
    assert (outputs(run), run["attempt"]) == (["1"], 1)
    assert worker.wait_for("a wheel environment was changed, and is built anew")


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
@pytest.mark.parametrize("how", ["owner", "rights", "above"])
def test_a_directory_of_others_is_refused(system: System, tmp_path: Path, how: str) -> None:
    place = tmp_path / "above/wheels"
    place.mkdir(parents=True)
    if how == "owner":
        os.chown(place, 12345, -1)
    else:
        (place if how == "rights" else place.parent).chmod(0o777)
    worker = Process(
        ["pyoco-worker", "--nats-url", system.nats_url, "--tags", "x", "--wheel-sync", "--wheel-sync-dir", str(place)],
        system.folder,
    )
    assert worker.popen.wait(30) == 1
    said = " ".join(str(line) for line in worker.lines)
    assert "cannot be trusted" in said
    assert "Traceback" not in said
