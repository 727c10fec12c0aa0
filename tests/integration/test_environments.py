"""Environments on a real disk with the real uv: one build, nothing left behind, nothing from the network."""

import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pyoco_server.worker.wheels.environments import Environment, Environments
from pyoco_server.worker.wheels.installer import BuildFailed
from pyoco_server.worker.wheels.plugins import WheelFile, WheelsBroken
from tests.wheels import make_wheel, wheel_members, write_wheel

FOLDERS = ("envs", "building")


def wheel_file(path: Path) -> WheelFile:
    package, version = path.name.split("-")[:2]
    return WheelFile(path.name, sha256(path), package.replace("_", "-"), version, path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def obtain(root: Path, *wheels: WheelFile, timeout: float = 60.0, deps: bool = False) -> Environment:
    async def ask() -> Environment:
        stop = asyncio.Event()
        made = Environments(root, timeout=timeout, with_dependencies=deps, stop=stop)
        return await made.obtain(hashlib.sha256("".join(wheel.sha256 for wheel in wheels).encode()).hexdigest(), wheels)

    return asyncio.run(ask())


def sweep(root: Path) -> set[str]:
    async def ask() -> set[str]:
        return await Environments(root, timeout=60, with_dependencies=False, stop=asyncio.Event()).sweep()

    return asyncio.run(ask())


def left(root: Path) -> tuple[int, int]:
    """Count the environments, and what lies in the building place."""
    envs, building = (len(list((root / name).iterdir())) for name in FOLDERS)
    return envs, building


def contents(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, sha256(path))
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def good(tmp_path: Path) -> WheelFile:
    return wheel_file(make_wheel(tmp_path, "task-a", "0.1.0", {"task_a/__init__.py": "def t():\n    return 'a'\n"}))


def test_fifty_first_uses_at_one_moment_make_one_build(
    tmp_path: Path, good: WheelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = []
    build = Environments._build

    async def counted(self, *arguments):
        builds.append(threading.get_ident())
        return await build(self, *arguments)

    monkeypatch.setattr(Environments, "_build", counted)
    root = tmp_path / "wheels"
    gate = threading.Barrier(50)

    def use() -> Environment:
        gate.wait(30)
        return obtain(root, good)

    with ThreadPoolExecutor(50) as pool:
        found = [future.result(60) for future in [pool.submit(use) for _ in range(50)]]
    assert len(builds) == 1
    assert {environment.directory for environment in found} == {found[0].directory}
    assert left(root) == (1, 0)


def first_use(root: Path, wheel: WheelFile, gate, told) -> None:
    gate.wait(30)
    told.put(str(obtain(root, wheel).directory))


@pytest.mark.slow
def test_first_uses_by_several_processes_make_one_build(tmp_path: Path, good: WheelFile) -> None:
    root = tmp_path / "wheels"
    spawn = multiprocessing.get_context("fork")
    gate, told = spawn.Barrier(8), spawn.Queue()
    processes = [spawn.Process(target=first_use, args=(root, good, gate, told)) for _ in range(8)]
    for process in processes:
        process.start()
    assert len({told.get(timeout=60) for _ in processes}) == 1
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert left(root) == (1, 0)


def test_an_environment_is_not_changed_by_its_use(tmp_path: Path, good: WheelFile) -> None:
    environment = obtain(tmp_path / "wheels", good)
    before = contents(environment.directory)
    code = "import sys; sys.path.append(sys.argv[1]); import task_a; print(task_a.t())"
    said = subprocess.run(
        [sys.executable, "-c", code, str(environment.directory)], capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["a"]
    assert contents(environment.directory) == before
    assert any(name.endswith(".pyc") for name in before)
    for path in environment.directory.rglob("*.py"):
        assert path.stat().st_nlink == 1  # nobody else, no cache of uv, owns the same file


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_environments import obtain, wheel_file
obtain(Path(sys.argv[1]), wheel_file(Path(sys.argv[2])))
"""


def test_a_killed_build_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, time\nwith open(os.environ['MARK'] + '.new', 'w') as file: file.write(str(os.getpid()))\n"
        "os.rename(os.environ['MARK'] + '.new', os.environ['MARK'])\ntime.sleep(600)\n"
    )
    mark = tmp_path / "mark"
    slow = make_wheel(tmp_path, "slow", "1", {"slow.py": code}, entry_points={"slow": "slow:t"})
    root = tmp_path / "wheels"
    builder = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root), str(slow)],
        env={**os.environ, "MARK": str(mark)},
        cwd=Path(__file__).parents[2],
    )
    deadline = time.monotonic() + 30
    while not mark.exists() and time.monotonic() < deadline:
        os.sched_yield()
    assert left(root) == (0, 1)
    builder.send_signal(signal.SIGKILL)
    builder.wait(10)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(mark.read_text())).wait(10)  # the process that loaded the plug-in goes with its worker
    quick = wheel_file(make_wheel(tmp_path, "quick", "1"))
    obtain(root, quick)
    sweep(root)
    assert left(root) == (1, 0)


def test_what_is_in_use_stays_and_old_ones_go(tmp_path: Path) -> None:
    root = tmp_path / "wheels"
    wheels = [wheel_file(make_wheel(tmp_path, "many", f"{number}")) for number in range(5)]
    used = obtain(root, wheels[0])
    for wheel in wheels[1:]:
        obtain(root, wheel)
    for number, digest in enumerate(path.name for path in sorted((root / "envs").iterdir())):
        os.utime(root / "locks" / f"{digest}.use", (number, 100 if digest == used.digest else 200 + number))
    kept = sweep(root)
    assert left(root) == (4, 0)
    assert used.directory.is_dir()
    assert wheels[0].sha256 in kept
    assert len(kept) == 4
    gone = used.directory
    del used
    sweep(root)
    assert not gone.exists()
    assert left(root) == (3, 0)
    assert len(list((root / "locks").iterdir())) == 6  # those of the removed ones went with them


def test_a_directory_without_a_manifest_is_built_anew(tmp_path: Path, good: WheelFile) -> None:
    root = tmp_path / "wheels"
    environment = obtain(root, good)
    environment.directory.chmod(0o755)
    (environment.directory / "pyoco-environment.json").unlink()
    (environment.directory / "task_a").chmod(0o755)
    (environment.directory / "task_a/__init__.py").unlink()
    again = obtain(root, good)
    assert (again.directory / "task_a/__init__.py").is_file()
    assert left(root) == (1, 0)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("import os\nos._exit(3)\n", "the process that loaded plug-in 'broken' ended with exit code 3"),
        pytest.param(
            "import time\ntime.sleep(600)\n",
            "the process that loaded plug-in 'broken' took longer than 3 s",
            marks=pytest.mark.slow,
        ),
        ("import sys\ndef t(registry):\n    sys.exit('no')\n", "SystemExit: no"),
        ("def other():\n    pass\n", "AttributeError: module 'broken' has no attribute 't'"),
    ],
)
def test_a_plug_in_that_does_not_load_is_named(tmp_path: Path, good: WheelFile, code: str, said: str) -> None:
    broken = wheel_file(make_wheel(tmp_path, "broken", "1", {"broken.py": code}, entry_points={"broken": "broken:t"}))
    with pytest.raises(WheelsBroken) as caught:
        obtain(tmp_path / "wheels", good, broken, timeout=3 if "sleep" in code else 60)
    assert list(caught.value.reasons) == [broken.name]
    assert said in caught.value.reasons[broken.name]
    assert left(tmp_path / "wheels") == (0, 0)


def test_a_wheel_that_uv_refuses_is_found_among_the_good_ones(tmp_path: Path, good: WheelFile) -> None:
    members = wheel_members("bad", "1", {"bad.py": "x = 1\n"})
    del members["bad-1.dist-info/METADATA"]
    bad = wheel_file(write_wheel(tmp_path / "bad-1-py3-none-any.whl", members))
    other = wheel_file(make_wheel(tmp_path, "other", "1"))
    with pytest.raises(WheelsBroken) as caught:
        obtain(tmp_path / "wheels", good, bad, other)
    assert list(caught.value.reasons) == [bad.name]
    assert left(tmp_path / "wheels") == (0, 0)


def test_plug_ins_are_told_with_their_tasks(tmp_path: Path) -> None:
    code = "print('hello')\ndef hook(registry):\n    registry.register_callable(int, name='plug/in')\n"
    wheel = wheel_file(make_wheel(tmp_path, "plug", "1", {"plug.py": code}, entry_points={"plug": "plug:hook"}))
    environment = obtain(tmp_path / "wheels", wheel)
    plugin = {"plugin": "plug", "package_name": "plug", "package_version": "1", "tasks": ["plug/in"]}
    assert environment.plugins == [plugin]
    assert json.loads((environment.directory / "pyoco-environment.json").read_text())["plugins"] == [plugin]


@pytest.fixture
def index() -> Iterator[tuple[str, list[bytes]]]:
    """Something that listens where an index would be, and notes what it is asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        asked.append(client.recv(4096))
                        client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_dependencies_are_not_fetched_unless_asked_for(
    tmp_path: Path, index: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = index
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, url)
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    needy = wheel_file(make_wheel(tmp_path, "needy", "1", metadata=["Requires-Dist: nowhere-to-be-found"]))
    environment = obtain(tmp_path / "wheels", needy)
    assert (environment.directory / "needy").is_dir()
    assert asked == []
    with pytest.raises((WheelsBroken, BuildFailed), match="nowhere-to-be-found"):
        obtain(tmp_path / "wheels", needy, deps=True)
    assert asked


@pytest.mark.slow
def test_with_dependencies_nothing_may_contradict_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolved from local files alone: what the worker has, in another version, is refused."""
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    make_wheel(tmp_path, "helper", "2")
    make_wheel(tmp_path, "pydantic", "99")
    fits = wheel_file(
        make_wheel(tmp_path, "fits", "1", metadata=["Requires-Dist: helper>=1", "Requires-Dist: pyoco-server"])
    )
    environment = obtain(tmp_path / "wheels", fits, deps=True)
    assert (environment.directory / "helper").is_dir()
    clash = wheel_file(make_wheel(tmp_path, "clash", "1", metadata=["Requires-Dist: pydantic>=99"]))
    with pytest.raises(WheelsBroken, match="pydantic"):
        obtain(tmp_path / "wheels", clash, deps=True)
