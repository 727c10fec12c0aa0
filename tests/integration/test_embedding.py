"""Flow resolvers of any kind in a program that has a worker in it, and programs of any kind around it."""

import functools
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyoco import Flow, task

from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.errors import CommandFailed
from pyoco_server.settings.environment import Settings
from pyoco_server.store.client import PyocoNatsClient
from pyoco_server.worker.embedding import PyocoNatsWorker
from pyoco_server.worker.resolvers import Carried, resolver_of

from .test_gateway import running

PATIENCE = 60
FLOW_YAML = "version: 1\nflow: {graph: helped}\ntasks: {helped: {callable: 'helper_of_the_script:helped'}}\n"


def flow_of(name: str, value: Any) -> Flow:
    """Make a flow whose task is defined in here, as the programs of the existing system do."""

    @task
    def told() -> Any:
        return value

    return Flow(name) >> told


class Shelf:
    """Holds flows, and gives them by a method."""

    def __init__(self, **flows: Flow) -> None:
        self._flows = flows

    def find(self, name: str) -> Flow:
        return self._flows[name]

    __call__ = find


def dag(name: str, *, length: int = 1500) -> Flow:
    """Make a flow the other way: tasks that know each other, in a chain of any length."""
    flow = Flow(name)
    tasks = [task(lambda: 7).task for _ in range(length)]
    for number, one in enumerate(tasks):
        one.name = f"t{number}"
        flow.add_task(one)
    for before, after in itertools.pairwise(tasks):
        before.dependents.add(after)
        after.dependencies.add(before)
    return flow


def kinds() -> dict[str, Callable[[str], Flow]]:
    """Return a resolver of each kind."""
    flow = flow_of("main", 7)

    def closure(name: str) -> Flow:
        if name != "main":
            raise KeyError(name)
        return flow

    return {
        "closure": closure,
        "lambda": lambda name: {"main": flow}[name],
        "method": Shelf(main=flow).find,
        "object": Shelf(main=flow),
        "partial": functools.partial(flow_of, value=7),
        "builtin method": {"main": flow}.__getitem__,
    }


async def run_on(worker: PyocoNatsWorker, client: PyocoNatsClient, name: str = "main") -> dict[str, Any]:
    """Have a run executed; its record is the answer."""
    run_id = await client.submit_run(name)
    assert await worker.run_once(timeout=PATIENCE) == run_id
    return await client.get_run(run_id)


@pytest.mark.anyio
@pytest.mark.parametrize("isolation", ["process", pytest.param("shared", marks=pytest.mark.slow)])
async def test_a_closure_sees_its_variables_as_they_are_when_a_run_begins(settings: Settings, isolation: str) -> None:
    settings = settings.model_copy(update={"isolation": isolation})
    flows = {"main": flow_of("main", 1)}
    client = await PyocoNatsClient.connect(settings)
    worker = await PyocoNatsWorker.connect(config=settings, flow_resolver=lambda name: flows[name], tags=["default"])
    try:
        for value in (1, 1, 2):
            flows["main"] = flow_of("main", value)
            run = await run_on(worker, client)
            assert (run["status"], run["task_records"]["told"]["output"]) == ("COMPLETED", value), run
        missing = await run_on(worker, client, "other")
        assert (missing["status"], missing["end_reason"]) == ("FAILED", "flow_not_found")
        flows["lock"] = threading.Lock()  # type: ignore[assignment]
        broken = await run_on(worker, client)
        assert (broken["status"], broken["end_reason"]) == ("FAILED", "invalid_flow")
        assert "item 'lock' (lock) of flows (dict)" in broken["error"]
        del flows["lock"]
        assert (await run_on(worker, client))["status"] == "COMPLETED"
    finally:
        await worker.close()
        await client.close()


@pytest.mark.anyio
@pytest.mark.slow
@pytest.mark.parametrize("kind", list(kinds()))
async def test_every_kind_of_function_resolves(settings: Settings, kind: str) -> None:
    resolver = kinds()[kind]
    client = await PyocoNatsClient.connect(settings)
    worker = await PyocoNatsWorker.connect(config=settings, flow_resolver=resolver, tags=["default"])
    try:
        run = await run_on(worker, client)
        assert (run["status"], run["task_records"]["told"]["output"]) == ("COMPLETED", 7), run
    finally:
        await worker.close()
        await client.close()


@pytest.mark.anyio
async def test_what_no_other_process_can_have_is_refused_by_name(settings: Settings) -> None:
    done, large = threading.Event(), b"x" * (17 << 20)
    shelf = Shelf(main=flow_of("main", 7))
    shelf.lock = threading.Lock()  # type: ignore[attr-defined]

    def waits(name: str) -> Flow:
        done.set()
        return flow_of(name, 1)

    for resolver, told in (
        (waits, "its _lock (lock) of _cond (Condition) of done (Event)"),
        (shelf.find, "lock (lock) of object (Shelf)"),
        (lambda name: flow_of(name, large), "more than 16 MiB"),
    ):
        with pytest.raises(CommandFailed) as caught:
            await PyocoNatsWorker.connect(config=settings, flow_resolver=resolver, tags=["default"])
        assert told in caught.value.message and caught.value.hint


def test_tasks_that_know_each_other_arrive_as_they_were() -> None:
    flow = dag("main")
    carried = Carried(lambda name: flow).packed()
    told = subprocess.run(
        [sys.executable, "-c", """
import json, sys
from pyoco_server.worker.child.flow.flows import load_resolver
flow = load_resolver(json.load(sys.stdin))("main")
tasks = sorted(flow.tasks, key=lambda task: int(task.name[1:]))
print(len(tasks), all(one.dependencies == set(tasks[n - 1:n] if n else ()) for n, one in enumerate(tasks)),
      all(one.dependents == set(tasks[n + 1:n + 2]) for n, one in enumerate(tasks)))
"""], input=json.dumps(carried), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert told.stdout.split() == ["1500", "True", "True"], told.stderr


@pytest.mark.slow
def test_what_scripts_define_arrives(nats_server: NatsServer, tmp_path: Path) -> None:
    """Classes of every usual kind, and what hangs on them."""
    (tmp_path / "run.py").write_text(
        script("kinds")
        .replace(
            "answer = 7",
            """
import contextvars, dataclasses, datetime, enum, functools, logging, re, typing
from decimal import Decimal
from pathlib import Path
import pydantic, structlog

class Colour(enum.Enum):
    RED = 7

class Model(pydantic.BaseModel):
    colour: Colour = Colour.RED
    when: datetime.datetime | None = None

@dataclasses.dataclass(frozen=True)
class Point:
    x: int = 7

class Row(typing.NamedTuple):
    x: int = 7

class Failed(Exception):
    pass

log, slog, pattern = logging.getLogger(__name__), structlog.get_logger(), re.compile("7")

@functools.lru_cache(maxsize=3)
def cached(x, left=3):
    return cached(x, left - 1) if left else x

class Value:
    @property
    def number(self):
        log.info("7"), slog.info("7")
        try:
            raise Failed
        except Failed:
            found = {Model().colour.value, Point().x, Row().x, cached(7), int(Decimal(7))}
            found.add(int(pattern.search("17").group()))
            assert isinstance(Model().colour, Colour) and Path(".").exists()
            assert cached.cache_parameters()["maxsize"] == 3 and super().__hash__()
            return found.pop() if len(found) == 1 else found

answer = Value()
""",
        )
        .replace("return answer", "return answer.number")
    )
    found = started(nats_server, tmp_path, "run.py")
    assert found[::2] == ("COMPLETED 7", 1), found[1]


def test_what_a_module_holds_is_still_imported_there() -> None:
    with pytest.raises(CommandFailed, match="of the type Flow, no function"):
        resolver_of(flow_of("main", 1))  # type: ignore[arg-type]
    assert resolver_of(None) is None and resolver_of("m:f") == "m:f"
    assert resolver_of(kinds) == f"{__file__}:kinds"
    assert all(isinstance(resolver_of(resolver), Carried) for resolver in kinds().values())


SCRIPT = """
import asyncio, os, sys
from pyoco import Flow, task
from pyoco_server import NatsBackendConfig, PyocoNatsClient, PyocoNatsWorker

with open(os.environ["STARTS"], "a") as starts:
    starts.write("started ")
answer = 7

@task
def told():
    return answer

def resolve(name):
    return Flow(name) >> told

async def main():
    config = NatsBackendConfig.from_env()
    client = await PyocoNatsClient.connect(config)
    worker = await PyocoNatsWorker.connect(config=config, flow_resolver=RESOLVER, worker_id=TAG, tags=[TAG])
    try:
        run_id = await client.submit_run("main", tag=TAG)
        assert await worker.run_once(timeout=60) == run_id
        run = await client.get_run(run_id)
        print(run["status"], run["task_records"]["told"]["output"])
    finally:
        await worker.close()
        await client.close()

asyncio.run(main())
"""


def started(nats_server: NatsServer, folder: Path, *command: str, text: str = "") -> tuple[str, str, int]:
    """Run a program; return what it printed, what it said of errors, and how often it was started."""
    starts = folder / "starts"
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, input=text, capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "PYOCO_NATS_URL": nats_server.url, "STARTS": str(starts),
             "PYTHONPATH": str(folder / "more")},
    )  # fmt: skip
    told = [line for line in done.stdout.splitlines() if line.startswith("COMPLETED")]
    return "".join(told), done.stderr, starts.read_text().count("started")


def script(tag: str, resolver: str = "resolve") -> str:
    return SCRIPT.replace("RESOLVER", resolver).replace("TAG", repr(tag))


def test_a_script_without_a_guard_is_started_once(nats_server: NatsServer, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(script("plain"))
    found = started(nats_server, tmp_path, "run.py")
    assert found[::2] == ("COMPLETED 7", 1), found[1]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["module", "command", "stdin", "beside", "spec", "spec of a module", "multiprocessing"])
def test_no_program_is_started_by_its_own_worker(nats_server: NatsServer, tmp_path: Path, way: str) -> None:
    tag = way.replace(" ", "-")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "program.py").write_text(script(tag))
    if way == "module":
        found = started(nats_server, tmp_path, "-m", "package.program")
    elif way == "command":
        found = started(nats_server, tmp_path, "-c", script(tag))
    elif way == "stdin":
        found = started(nats_server, tmp_path, "-", text=script(tag))
    elif way == "beside":  # what the script imports lies in folders of its own path
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "flows.py").write_text("from pyoco import Flow\ndef make(name, t): return Flow(name) >> t")
        text = "from flows import make\n" + script(tag, "lambda name: make(name, told)")
        (package / "program.py").write_text(text)
        found = started(nats_server, tmp_path, "package/program.py")
    elif way == "multiprocessing":
        body = script(tag).replace("asyncio.run(main())", "def go(): asyncio.run(main())")
        guard = "if __name__ == '__main__':\n    import multiprocessing as m\n    m.set_start_method('spawn')\n"
        guard += "    process = m.Process(target=go)\n    process.start()\n    process.join()\n"
        (tmp_path / "run.py").write_text(body + guard)
        said, errors, count = started(nats_server, tmp_path, "run.py")
        found = (said, errors, count - 1)  # multiprocessing itself starts it again
    else:  # who names the script's file wants it imported: it is told what is wrong, and goes no deeper
        (tmp_path / "run.py").write_text(script(tag, "'run.py:resolve'" if way == "spec" else "'run:resolve'"))
        said, errors, count = started(nats_server, tmp_path, "run.py")
        assert "under: if __name__" in errors and "starts a worker when it is imported" in errors, errors
        assert (said, count) == ("", 2)
        return
    assert found[::2] == ("COMPLETED 7", 1), found


@pytest.mark.anyio
async def test_a_flow_yaml_finds_what_lies_beside_the_program(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper_of_the_script.py").write_text("def helped(): return 8\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    worker = await PyocoNatsWorker.connect(config=settings, flow_resolver=kinds()["closure"], tags=["default"])
    try:
        async with running(settings) as gateway:
            files = {"workflow": ("flow.yaml", FLOW_YAML)}
            answer = await gateway.http.post("/runs/yaml", data={"flow_name": "main"}, files=files)
            assert answer.status_code == 200, answer.text
            assert await worker.run_once(timeout=PATIENCE) == answer.json()["run_id"]
            run = (await gateway.http.get(f"/runs/{answer.json()['run_id']}")).json()
            assert run["status"] == "COMPLETED", run
    finally:
        await worker.close()
