"""What a worker tells of its machine: read beside the event loop, and never a reason to stop."""

import asyncio
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pyoco_server.model.worker import GpuFigures, WorkerRecord
from pyoco_server.worker.machine import resources
from pyoco_server.worker.machine.bounded_thread import Sideline
from pyoco_server.worker.machine.gpus import GpuReader
from pyoco_server.worker.machine.resources import ProcessTree, ResourceWatch

pytestmark = pytest.mark.anyio
GIB = 1024**3


class NVMLError(Exception):
    """As nvidia-ml-py's."""


class FakeNvml:
    """A driver with one whole GPU and one that tells nothing but its name; or one that is not there."""

    NVMLError = NVMLError

    def __init__(self) -> None:
        self.there = True
        self.opened = 0

    def nvmlInit(self) -> None:
        self._answer(None)
        self.opened += 1

    def nvmlDeviceGetCount(self) -> int:
        return int(self._answer(3))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return int(self._answer(index, index != 2))

    def nvmlDeviceGetName(self, handle: int) -> Any:
        return self._answer(["NVIDIA H100 80GB HBM3", b"old driver"][handle])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return self._answer(SimpleNamespace(used=3 * GIB, total=80 * GIB), handle == 0)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return self._answer(SimpleNamespace(gpu=42, memory=7), handle == 0)

    def _answer(self, value: Any, told: bool = True) -> Any:
        if not (self.there and told):
            raise NVMLError("Not Supported" if self.there else "Driver Not Loaded")
        return value


def test_gpus_are_read_and_what_one_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, reader = FakeNvml(), GpuReader()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    whole = GpuFigures(index=0, name="NVIDIA H100 80GB HBM3", memory_used_bytes=3 * GIB, memory_total_bytes=80 * GIB,
                       utilization_percent=42)  # fmt: skip
    told = [whole, GpuFigures(index=1, name="old driver"), GpuFigures(index=2)]
    assert reader.read() == told == reader.read()
    assert driver.opened == 1
    driver.there = False
    assert reader.read() == []
    driver.there = True
    assert reader.read() == told
    stored = WorkerRecord.from_json(WorkerRecord(worker_id="w", gpus=told).to_json())
    assert stored.gpus == told


def test_without_the_package_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuReader().read() == []


def test_the_real_package_gives_a_list_with_or_without_a_driver() -> None:
    import pynvml

    assert pynvml.nvmlInit  # the one that is meant, nvidia-ml-py
    for gpu in GpuReader().read():
        assert gpu.name


async def test_memory_and_cpu_of_a_process_and_its_children() -> None:
    tree = ProcessTree()
    alone = tree.read()
    assert alone["cpu_percent"] is None  # of what time?
    code = "x = bytearray(b'x') * 50_000_000\nprint()\ninput()\nwhile True: pass"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    try:
        child.stdout.readline()
        tree.read()
        child.stdin.write(b"\n")
        child.stdin.flush()
        while psutil.Process(child.pid).cpu_times().user < 0.3:
            assert child.poll() is None
        both = tree.read()
        assert both["memory_bytes"] >= alone["memory_bytes"] + 50_000_000
        assert both["cpu_percent"] > 0
    finally:
        child.kill()
        child.communicate()
    assert tree._before
    _, used = tree._before
    tree.read()
    # The child's time has gone over to its parent. The kernel counts hundredths; sums in another order differ by less.
    assert round(tree._before[1], 2) >= round(used, 2)
    for name in ("host_cpu_count", "host_memory_total_bytes", "host_memory_available_bytes"):
        assert both[name] > 0
    assert WorkerRecord(worker_id="w").evolve(**both).host_load_1m is not None


async def test_a_call_that_hangs_holds_nobody_up_and_is_not_made_twice() -> None:
    let_go, calls = threading.Event(), []

    def hang() -> int:
        calls.append(1)
        let_go.wait(10)
        return 7

    sideline = Sideline(hang, 0.05)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await sideline.ask()
    assert len(calls) == 1
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "sideline"] == [True]
    let_go.set()
    assert await Sideline(lambda: 1, 5).ask() == 1
    sideline._deadline = 5
    assert await sideline.ask() == 7
    with pytest.raises(ZeroDivisionError):
        await Sideline(lambda: 1 // 0, 5).ask()


async def test_figures_go_on_while_the_driver_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_DEADLINE", 0.05)
    let_go = threading.Event()
    monkeypatch.setattr(GpuReader, "read", lambda _: let_go.wait(10) and [])
    noted: list[dict[str, Any]] = []
    watch = ResourceWatch(noted.append)
    watch._processes._deadline = 5.0
    try:
        for _ in range(3):
            await asyncio.wait_for(watch.read(), 10)
            await asyncio.sleep(0.01)  # a share of the CPU is of some time
    finally:
        let_go.set()
    assert [figures["gpus"] for figures in noted] == [[], [], []]
    assert noted[2]["memory_bytes"] > 0 and noted[2]["cpu_percent"] is not None


def test_a_process_ends_although_a_call_hangs() -> None:
    code = """
import asyncio, threading
from pyoco_server.worker.machine.bounded_thread import Sideline
async def main():
    try:
        await Sideline(threading.Event().wait, 0.05).ask()
    except TimeoutError:
        print("gave up")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode, done.stderr) == ("gave up\n", 0, "")
