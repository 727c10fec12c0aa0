"""The log of a run that has ended, and that NATS does not take yet, waits beside the next runs."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.runlog import LogChunk, LogStream
from pyoco_server.settings.environment import Settings
from pyoco_server.worker import slot as slot_module
from pyoco_server.worker.child.output.frames import Form
from pyoco_server.worker.logs.logtail import Printed
from pyoco_server.worker.logs.runlog import RunLog
from pyoco_server.worker.machine.directories import Machine
from pyoco_server.worker.slot import Slot

pytestmark = pytest.mark.anyio


class Store:
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.lines: list[str] = []

    async def publish(self, run_id: str, chunk: LogChunk, message_id: str) -> None:
        if not self.open.is_set():
            raise StoreUnavailable("there is no leader")
        self.lines += [line.text for line in chunk.lines]


def make_slot(folder: Path) -> Slot:
    async def nothing() -> None:
        """There is no request to take back."""

    none = cast(Any, None)
    fitness = cast(Any, SimpleNamespace(machine=Machine(folder, folder)))
    return Slot(
        Settings(_env_file=None), puller=cast(Any, SimpleNamespace(close=nothing)), claims=none, runs=none, flows=none,
        logs=none, registration=none, resolver=None, fitness=fitness, max_runs_per_child=1,
    )  # fmt: skip


def ended_log(store: Store) -> RunLog:
    run_log = RunLog(cast(Any, store), "r", 1, 1024)
    run_log.take(Printed(1.0, None, LogStream.STDOUT, b"the last line"), Form.LINE)
    return run_log


async def test_it_is_stored_when_there_is_a_leader_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_module, "_LOG_SEC", 0.05)
    store, slot = Store(), make_slot(tmp_path)
    await slot._end_log(ended_log(store))
    assert store.lines == [] and len(slot._lingering) == 1
    store.open.set()
    await asyncio.wait_for(next(iter(slot._lingering)), 5)
    assert store.lines == ["the last line"] and not slot._lingering


async def test_so_many_wait_and_none_holds_a_worker_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_module, "_LOG_SEC", 0.01)
    monkeypatch.setattr(slot_module, "_LINGERING", 2)
    store, slot = Store(), make_slot(tmp_path)
    for _ in range(4):
        await slot._end_log(ended_log(store))

    async def those_that_may_not_wait_are_given_up() -> None:
        while len(slot._lingering) > 2:
            await asyncio.wait(slot._lingering, return_when=asyncio.FIRST_COMPLETED)

    await asyncio.wait_for(those_that_may_not_wait_are_given_up(), 5)
    assert len(slot._lingering) == 2
    await asyncio.wait_for(slot.close(), 5)
    assert store.lines == []
