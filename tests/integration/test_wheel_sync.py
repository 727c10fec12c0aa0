"""A worker's wheels follow the registry: what fails is left out and told, and the last good environment stays."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pyoco_server.errors import StoreUnavailable, WheelDamaged
from pyoco_server.model.wheels.wheel import WheelEntry, parse_wheel_name
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.wheels.sync import WheelSync
from tests.wheels import make_wheel

pytestmark = pytest.mark.anyio


class Registry:
    """A registry in memory, which can be away, lie about bytes, or fail in ways that nobody thought of."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.entries: dict[str, WheelEntry] = {}
        self.seq = 0
        self.trouble: Exception | None = None
        self.lies = False
        self.reads = 0

    def put(self, path: Path, *tags: str, pinned_at: float | None = None) -> WheelEntry:
        raw = path.read_bytes()
        name = parse_wheel_name(path.name)
        self.seq += 1
        self.entries[path.name] = WheelEntry(
            name=path.name, size_bytes=len(raw), digest="SHA-256=x", sha256_b64="x",
            sha256_hex=hashlib.sha256(raw).hexdigest(), mtime="x", modified=float(self.seq), bucket="b",
            nuid=f"n{self.seq}", tags=list(tags), package=name.package, version=str(name.version), pinned_at=pinned_at,
        )  # fmt: skip
        self.files[path.name] = path
        return self.entries[path.name]

    def remove(self, name: str) -> None:
        self.seq += 1
        del self.entries[name]

    async def list(self) -> list[WheelEntry]:
        if self.trouble:
            raise self.trouble
        return list(self.entries.values())

    async def read_to(self, entry: WheelEntry, file: BinaryIO) -> None:
        self.reads += 1
        file.write(self.files[entry.name].read_bytes() + (b"x" if self.lies else b""))
        if self.lies:
            raise WheelDamaged(f"the stored wheel {entry.name} is damaged")

    async def revision(self) -> int:
        if self.trouble:
            raise self.trouble
        return self.seq


class Running:
    """A sync that runs, and what it reported."""

    def __init__(self, settings: Settings, registry: Registry, worker_id: str = "w") -> None:
        self.stop = asyncio.Event()
        self.reports: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self.sync = WheelSync(
            settings, registry, worker_id=worker_id, tags=["cpu"], report=self._report, stop=self.stop
        )  # fmt: skip

    def _report(self, status: dict[str, Any], news: bool) -> None:
        self.reports.append(status)
        self._news.set()

    async def until(self, holds: Callable[[dict[str, Any]], bool], timeout: float = 30.0) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + timeout
        while not (self.reports and holds(self.reports[-1])):
            left = deadline - asyncio.get_running_loop().time()
            assert left > 0, self.reports[-1:]
            self._news.clear()
            await first_event(left, self._news)
        return self.reports[-1]

    async def step(self) -> dict[str, Any]:
        await self.sync.in_step(self.stop)
        return self.reports[-1]


@asynccontextmanager
async def running(settings: Settings, registry: Registry) -> AsyncIterator[Running]:
    made = Running(settings, registry)
    task = asyncio.create_task(made.sync.run())
    try:
        await asyncio.wait_for(made.sync.ready.wait(), 60)
        yield made
    finally:
        made.stop.set()
        await asyncio.wait_for(task, 30)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, wheel_sync_dir=tmp_path / "wheels", wheel_sync_interval_sec=600)


def names(status: dict[str, Any]) -> list[str]:
    return [wheel["wheel_name"] for wheel in status["installed_wheels"]]


def broken_plug_in(folder: Path, package: str, version: str) -> Path:
    return make_wheel(folder, package, version, {"p.py": "1 / 0\n"}, entry_points={"p": "p:t"})


async def test_tags_decide_and_nothing_selected_is_no_environment(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    async with running(settings, registry) as worker:
        assert worker.sync.environment is None
        assert (worker.reports[0]["enabled"], worker.reports[0]["last_result"]) == (True, "idle")
        assert set(worker.reports[0]) == set(worker.reports[-1])
        registry.put(make_wheel(tmp_path, "other", "1"), "gpu")
        assert (await worker.step())["environment"] is None
        registry.put(make_wheel(tmp_path, "mine", "1"), "cpu", "gpu")
        registry.put(make_wheel(tmp_path, "shared", "1"))
        registry.put(make_wheel(tmp_path, "shared", "2", tag="cp27-cp27m-win32"))
        status = await worker.step()
        assert names(status) == ["mine-1-py3-none-any.whl", "shared-1-py3-none-any.whl"]
        assert [item["wheel_name"] for item in status["skipped_incompatible"]] == ["shared-2-cp27-cp27m-win32.whl"]
        assert (status["last_result"], status["last_error"]) == ("ok", None)
        for name in list(registry.entries):
            registry.remove(name)
        assert (await worker.step())["environment"] is None


async def test_a_wheel_that_was_tampered_with_never_reaches_the_installer(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    first = registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        good = worker.sync.environment
        assert good is not None
        registry.lies = True
        second = registry.put(make_wheel(tmp_path, "lib", "2"))
        status = await worker.step()
        assert worker.sync.environment is good  # its version before
        assert status["outcome"] == "partial"
        assert status["skipped_incompatible"][0] == {
            "wheel_name": second.name,
            "package_name": "lib",
            "package_version": "2",
            "reason": "broken",
            "text": status["last_error"][len(second.name) + 2 :],
        }
        assert "damaged" in status["last_error"]
        assert list((settings.wheel_sync_dir / "files" / second.sha256_hex).iterdir()) == []
        assert list((settings.wheel_sync_dir / "files" / first.sha256_hex).iterdir()) != []


async def test_a_download_that_was_changed_on_the_disk_is_fetched_anew(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    one = registry.put(make_wheel(tmp_path, "one", "1"))
    async with running(settings, registry) as worker:
        (settings.wheel_sync_dir / "files" / one.sha256_hex / one.name).write_bytes(b"something else")
        registry.put(make_wheel(tmp_path, "two", "1"))
        assert names(await worker.step()) == ["one-1-py3-none-any.whl", "two-1-py3-none-any.whl"]
        assert registry.reads == 3


async def test_a_broken_pinned_version_is_not_replaced_by_a_newer_one(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "lib", "1"))
    registry.put(broken_plug_in(tmp_path, "lib", "2"), pinned_at=5.0)
    registry.put(make_wheel(tmp_path, "lib", "3"))
    async with running(settings, registry) as worker:
        assert names(worker.reports[-1]) == ["lib-1-py3-none-any.whl"]
        assert worker.reports[-1]["outcome"] == "partial"
        registry.remove("lib-2-py3-none-any.whl")
        assert names(await worker.step()) == ["lib-3-py3-none-any.whl"]


async def test_a_name_as_its_author_writes_it_is_found_when_it_breaks(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "good", "1"))
    path = broken_plug_in(tmp_path, "Odd_Name", "1")
    registry.put(path)
    async with running(settings, registry) as worker:
        assert names(worker.reports[-1]) == ["good-1-py3-none-any.whl"]
        assert "ZeroDivisionError" in worker.reports[-1]["last_error"]


async def test_a_broken_wheel_is_tried_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyoco_server.worker.wheels.sync._FIRST_RETRY", 0.2)
    mark = tmp_path / "mark"
    hook = "def t(registry):\n    registry.register_callable(int, name='n')\n"
    code = f"import os\nassert os.path.exists({str(mark)!r})\n{hook}"
    registry = Registry()
    registry.put(make_wheel(tmp_path, "moody", "1", {"moody.py": code}, entry_points={"p": "moody:t"}))
    async with running(settings, registry) as worker:
        assert worker.reports[-1]["outcome"] == "partial"
        mark.touch()
        status = await worker.until(lambda status: status["last_result"] == "ok")
        assert status["plugins"][0]["tasks"] == ["n"]


async def test_what_the_worker_has_itself_comes_first_and_is_told(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "pydantic", "99"))
    async with running(settings, registry) as worker:
        status = worker.reports[-1]
        assert status["environment"] is None
        assert "the worker itself has pydantic" in status["skipped_incompatible"][0]["text"]


async def test_without_the_registry_a_worker_starts_with_its_last_environment(
    settings: Settings, tmp_path: Path
) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        used = worker.reports[-1]["environment"]
    registry.trouble = StoreUnavailable("NATS is away")
    async with running(settings, registry) as worker:
        status = worker.reports[-1]
        assert (status["environment"], status["outcome"], status["last_error"]) == (used, "failed", "NATS is away")
        await asyncio.wait_for(worker.sync.in_step(worker.stop), 10)  # a run does not wait for it
        registry.trouble = None
        worker.sync.look()
        await worker.until(lambda status: status["last_result"] == "ok")
    other = Running(settings, registry, worker_id="another")
    assert other.sync._remembered() is None


@pytest.mark.parametrize("trouble", [RuntimeError("nobody thought of this"), OSError(28, "No space left on device")])
async def test_nothing_ends_the_sync(settings: Settings, tmp_path: Path, trouble: Exception) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        used = worker.sync.environment
        registry.trouble = trouble
        worker.sync.look()
        status = await worker.until(lambda status: status["outcome"] == "failed")
        assert str(trouble) in status["last_error"]
        assert worker.sync.environment is used is not None


async def test_an_environment_in_which_no_child_starts_is_given_up(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        good = worker.sync.environment
        registry.put(make_wheel(tmp_path, "lib", "2"))
        await worker.step()
        bad = worker.sync.environment
        assert bad is not good
        assert worker.sync.refuse(bad, "the resolver does not load")
        assert worker.sync.environment is good
        assert worker.sync.refuse(bad, "too late")  # it is not in use any more: try the one that is
        registry.put(make_wheel(tmp_path, "elsewhere", "1"), "gpu")
        status = await worker.step()
        assert worker.sync.environment is good
        assert "the resolver does not load" in status["last_error"]
        registry.put(make_wheel(tmp_path, "lib", "3"))
        assert names(await worker.step()) == ["lib-3-py3-none-any.whl"]


async def test_the_memory_of_another_interpreter_is_not_used(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        environment = worker.sync.environment
        assert environment is not None
    manifest = environment.directory / "pyoco-environment.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "interpreter": "cpython-20"}))
    assert Running(settings, registry).sync._remembered() is None
