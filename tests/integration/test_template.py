"""A template: what may be loaded before the fork, what is refused, and when it is replaced."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from pyoco_server.errors import CommandFailed
from pyoco_server.model.run import RunRecord
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.child.process import ChildProcess, Template
from pyoco_server.worker.children import Children
from pyoco_server.worker.machine.directories import Machine
from pyoco_server.worker.wheels.environments import Environment

pytestmark = pytest.mark.anyio


def environment(folder: Path, **modules: str) -> Environment:
    """An environment of wheels, made by hand."""
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    return Environment("d" * 64, folder, [], [], cast(Any, None), "")


@contextlib.asynccontextmanager
async def started(template: Template) -> AsyncIterator[Template]:
    try:
        await template.start(str(Path.cwd()))
        yield template
    finally:
        await template.end()


async def resolve(child: ChildProcess, resolver: str) -> str | None:
    """Let a child import something; return its error."""
    await child.born()
    answer = await child.ask({"type": "try", "resolver": resolver}, 20)
    await child.end()
    assert answer is not None
    return cast("str | None", answer["error"])


async def test_what_is_preloaded_is_there_in_every_child(tmp_path: Path) -> None:
    where = environment(tmp_path, heavy="import os\nPID = os.getpid()\n")
    (tmp_path / "look.py").write_text(
        "import sys\nassert 'heavy' in sys.modules\n"
        "import heavy, os\nassert heavy.PID == os.getppid()\ndef f(name): ...\n"
    )
    async with started(Template(where, preload=["heavy"])) as template:
        for _ in range(2):
            assert await resolve(template.fork(), f"{tmp_path}/look.py:f") is None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(9,), name='poll', daemon=True).start()",
         "importing it starts threads (poll), which a fork loses"),
        ("import _thread, time\n_thread.start_new_thread(time.sleep, (9,))",
         "importing it starts threads that do not survive a fork"),
        ("1 / 0", "importing it raised ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "importing it raised SystemExit: 3"),
    ],
)  # fmt: skip
async def test_what_is_refused(tmp_path: Path, code: str, said: str) -> None:
    template = Template(environment(tmp_path, heavy=code), preload=["heavy"])
    with pytest.raises(CommandFailed, match="did not start") as caught:
        await template.start(str(Path.cwd()))
    assert f"--preload heavy: {said}" in caught.value.message
    assert not template.is_alive


async def test_code_that_may_change_is_not_preloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loose.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(CommandFailed, match="is not part of an installed environment"):
        await Template(None, preload=["loose"]).start(str(Path.cwd()))
    with pytest.raises(CommandFailed, match="No module named 'nowhere_at_all'"):
        await Template(None, preload=["nowhere_at_all"]).start(str(Path.cwd()))


async def test_a_template_that_dies_takes_its_children_along_and_is_replaced(tmp_path: Path) -> None:
    children = slot_children(tmp_path)
    try:
        first = await children.prepare()
        parent = psutil.Process(first.pid).parent()
        assert parent is not None
        parent.kill()
        end = await asyncio.wait_for(first.wait_end(), 20)
        assert end.code < 0
        second = await children.prepare()
        assert second.is_alive
        assert second.template is not first.template
    finally:
        await children.close()


async def test_a_template_that_has_grown_is_replaced_by_one_that_is_small(tmp_path: Path) -> None:
    children = slot_children(tmp_path)
    try:
        first = await children.prepare()
        assert (await children.prepare()) is first
        first.template.grown = True
        second = await children.prepare()
        assert second.template is not first.template
        assert not first.is_alive
    finally:
        await children.close()


async def test_a_process_waits_for_each_run_and_none_is_left_at_the_end(tmp_path: Path) -> None:
    children = slot_children(tmp_path)
    record = RunRecord(run_id="r", flow_name="f")
    pids = set()

    async def buried() -> None:
        assert not psutil.pid_exists(child.pid)

    try:
        await children.prepare()
        for _ in range(3):
            child = await children.take(record)
            pids.add(child.pid)
            await children.give_back(child, record, reusable=True, left=False, buried=buried)
            assert not psutil.pid_exists(child.pid)
    finally:
        await children.close()
    assert len(pids) == 3
    left = [" ".join(process.cmdline()) for process in psutil.Process(os.getpid()).children(recursive=True)]
    assert not [command for command in left if "template" in command]


def slot_children(folder: Path) -> Children:
    """Those of a slot without wheels."""
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    machine = Machine(folder, Path.cwd())
    return Children(settings, None, wheels=None, machine=machine, max_runs=1)
