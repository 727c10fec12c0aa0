"""Each tenant's runs import from its own wheels and the shared ones; what is wrong with them is that tenant's alone."""

import asyncio
import importlib
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pyoco_server.model.wheels.wheel import WheelEntry
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.wheels import tenants
from pyoco_server.worker.wheels.environments import Environment
from pyoco_server.worker.wheels.worker_wheels import WorkerWheels
from tests.integration.test_wheel_sync import Registry
from tests.wheels import make_wheel

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Shelf(Registry):
    """A registry in memory, with wheels of tenants."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def add(self, tenant: str | None, package: str, version: str, code: str = "", *tags: str, **options: Any) -> str:
        place = self._folder / f"{tenant}-{package}-{version}"
        place.mkdir()
        text = f"WHOSE = {tenant!r}\nVERSION = {version!r}\n{code}"
        path = make_wheel(place, package, version, {f"{package}.py": text}, **options)
        entry = self.put(path, *tags).model_copy(update={"tenant_id": tenant})
        del self.entries[path.name]
        self.entries[f"{path.name}@{tenant}"] = entry
        self.files[entry.sha256_hex] = path
        return f"{path.name}@{tenant}"

    async def read_to(self, entry: WheelEntry, file: BinaryIO) -> None:
        self.reads += 1
        file.write(self.files[entry.sha256_hex].read_bytes())


class Here:
    """The wheels of a worker, and what was told of them."""

    def __init__(self, settings: Settings, shelf: Shelf) -> None:
        self.stop = asyncio.Event()
        self.status: dict[str, Any] = {}
        self._news = asyncio.Event()
        self.wheels = WorkerWheels(
            settings, shelf, worker_id="w", tags=["cpu"], report=self._report, stop=self.stop
        )  # fmt: skip

    def _report(self, status: dict[str, Any], news: bool) -> None:
        self.status = status
        self._news.set()

    async def of(self, tenant: str | None, timeout: float = 60) -> Environment | None:
        """Return what a run of a tenant that is claimed now imports from."""

        async def ready() -> None:
            await self.wheels.in_step(self.stop)
            await self.wheels.ready_for(tenant, self.stop)

        await asyncio.wait_for(ready(), timeout)
        return self.wheels.environment_of(tenant)

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + 30
        while not holds(self.status):
            left = deadline - asyncio.get_running_loop().time()
            assert left > 0, self.status
            self._news.clear()
            await first_event(left, self._news)
        return self.status


@asynccontextmanager
async def serving(settings: Settings, shelf: Shelf) -> AsyncIterator[Here]:
    here = Here(settings, shelf)
    task = asyncio.create_task(here.wheels.run())
    try:
        await asyncio.wait_for(here.wheels.ready.wait(), 60)
        yield here
    finally:
        here.stop.set()
        await asyncio.wait_for(task, 30)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, wheel_sync_dir=tmp_path / "wheels", wheel_sync_interval_sec=600)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "shelf").mkdir()
    return Shelf(tmp_path / "shelf")


@contextmanager
def importing(environment: Environment | None) -> Iterator[Callable[[str], Any]]:
    """Import modules as a run would that has an environment."""
    names: list[str] = []

    def load(name: str) -> Any:
        names.append(name)
        return importlib.import_module(name)

    assert environment is not None
    sys.path.append(str(environment.directory))
    importlib.invalidate_caches()
    try:
        yield load
    finally:
        sys.path.remove(str(environment.directory))
        for name in names:
            sys.modules.pop(name, None)


async def test_own_wheels_and_shared_ones(settings: Settings, shelf: Shelf) -> None:
    shelf.add(None, "common", "1")
    shelf.add(None, "both", "9")
    shelf.add("alpha", "tool", "1")
    shelf.add("alpha", "both", "1")
    shelf.add("beta", "tool", "2")
    shelf.add("gamma", "tool", "1", "", "gpu")  # for other workers
    async with serving(settings, shelf) as here:
        found = {tenant: await here.of(tenant) for tenant in ("alpha", "beta", "gamma", "delta", None)}
        assert found["gamma"] is found["delta"] is found[None] is here.wheels.environment
        for tenant, versions in (("alpha", ("1", "1", "1")), ("beta", ("1", "9", "2"))):
            with importing(found[tenant]) as load:
                modules = [load(name) for name in ("common", "both", "tool")]
                assert tuple(module.VERSION for module in modules) == versions
                assert tenant == modules[2].WHOSE
        with importing(found["delta"]) as load, pytest.raises(ModuleNotFoundError):
            load("tool")
        told = here.status["tenants"]
        assert [row["wheel_name"] for row in told["alpha"]["installed_wheels"]] == [
            "both-1-py3-none-any.whl", "tool-1-py3-none-any.whl",
        ]  # fmt: skip
        assert told["alpha"]["environment"] == found["alpha"].digest
        assert "tool" not in str({**here.status, "tenants": None})
        assert all(here.wheels.uses(environment) for environment in found.values())
        shelf.remove("tool-2-py3-none-any.whl@beta")
        assert await here.of("beta") is here.wheels.environment
        assert not here.wheels.uses(found["beta"])
        await here.until(lambda status: "beta" not in status["tenants"])
        assert shelf.reads == 6 - 1  # what gamma has is not fetched


async def test_one_that_is_slow_or_broken_holds_up_its_own_tenant_alone(
    settings: Settings, shelf: Shelf, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\ndef hook(registry): pass\n"
    async with serving(settings, shelf) as here:
        shelf.add("slow", "tool", "1", wait, entry_points={"p": "tool:hook"})
        shelf.add("broken", "tool", "1", "1 / 0\n", entry_points={"p": "tool:hook"})
        shelf.add("good", "tool", "1")
        waiting = asyncio.create_task(here.of("slow"))
        assert await here.of(None) is None
        assert await here.of("stranger") is None
        assert await here.of("good") is not None
        shelf.add(None, "common", "1")
        assert await here.of(None) is not None
        assert await here.of("broken") is here.wheels.environment
        told = (await here.until(lambda status: status["tenants"]["broken"]["outcome"] == "partial"))["tenants"]
        assert "tool-1" in told["broken"]["last_error"] and "ZeroDivisionError" in told["broken"]["last_error"]
        assert here.status["last_result"] == told["good"]["last_result"] == "ok"
        assert "ZeroDivisionError" in here.wheels.explain_to("broken", "No module named 'tool'")
        assert here.wheels.explain_to("stranger", "No module named 'tool'") == ""
        assert not waiting.done()
        go.touch()
        assert await waiting is not None


async def test_an_environment_that_is_refused_for_a_tenant_stays_in_use_for_others(
    settings: Settings, shelf: Shelf
) -> None:
    shelf.add(None, "common", "1")
    shelf.add("alpha", "tool", "1")
    shelf.add("beta", "tool", "2")
    async with serving(settings, shelf) as here:
        own = await here.of("alpha")
        shared, others = here.wheels.environment, await here.of("beta")
        assert here.wheels.refuse_of("alpha", own, "the resolver does not load")
        assert (await here.of("alpha"), here.wheels.environment, await here.of("beta")) == (shared, shared, others)
        assert here.status["tenants"]["alpha"]["outcome"] == "failed"
        assert here.status["last_result"] == "ok"


async def test_an_environment_that_somebody_removed_is_built_anew_before_the_run(
    settings: Settings, shelf: Shelf
) -> None:
    shelf.add("alpha", "tool", "1")
    async with serving(settings, shelf) as here:
        found = await here.of("alpha")
        assert found is not None
        shutil.rmtree(found.directory)
        again = await here.of("alpha")
        assert again is not None and again.flaw() is None


async def test_more_tenants_than_are_kept_have_theirs_all_the_same(
    settings: Settings, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenants, "MOST", 2)
    names = ["a", "b", "c"]
    for name in names:
        shelf.add(name, "tool", "1")
    async with serving(settings, shelf) as here:
        for name in [*names, *names]:
            with importing(await here.of(name)) as load:
                assert name == load("tool").WHOSE
            assert len(here.status["tenants"]) <= 2
        assert {environment.digest for environment in here.wheels._tenants.environments()} == {
            told["environment"] for told in here.status["tenants"].values()
        }


async def test_a_worker_that_starts_anew_builds_nothing_again(settings: Settings, shelf: Shelf) -> None:
    shelf.add("alpha", "tool", "1")
    async with serving(settings, shelf) as here:
        first = await here.of("alpha")
    async with serving(settings, shelf) as here:
        second = await here.of("alpha")
    assert first == second and shelf.reads == 1
