"""What the worker and its runs take of the machine: read once per heartbeat interval, beside the event loop."""

import os
import time
from collections.abc import Callable
from typing import Any

import psutil
import structlog

from pyoco_server.worker.machine.bounded_thread import Sideline
from pyoco_server.worker.machine.gpus import GpuReader

log = structlog.get_logger(__name__)

_DEADLINE = 2.0
_NO_PROCESSES: dict[str, Any] = {"memory_bytes": None, "cpu_percent": None}
_NO_GPUS: dict[str, Any] = {"gpus": []}


class ProcessTree:
    """Memory and CPU of this process and of everything that it started, user code and its daemons too."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before: tuple[float, float] | None = None

    def read(self) -> dict[str, Any]:
        """Give the fields of a worker's record that tell of processes and of the machine."""
        memory, busy = 0, 0.0
        # Parents come first: a process that ends meanwhile is missing this time, and counts with its parent next time.
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                with process.oneshot():
                    memory += process.memory_info().rss
                    times = process.cpu_times()
            except psutil.Error:
                continue  # it has just ended
            # With those of children that ended, so that nothing gets lost between two looks.
            busy += times.user + times.system + times.children_user + times.children_system
        machine = psutil.virtual_memory()
        return {
            "memory_bytes": memory,
            "cpu_percent": self._percent(time.monotonic(), busy),
            "host_cpu_count": os.cpu_count(),
            "host_load_1m": round(os.getloadavg()[0], 2),
            "host_memory_total_bytes": machine.total,
            "host_memory_available_bytes": machine.available,
        }

    def _percent(self, now: float, busy: float) -> float | None:
        before, self._before = self._before, (now, busy)
        if before is None or now <= before[0]:
            return None
        return round(max(0.0, busy - before[1]) / (now - before[0]) * 100, 1)


class ResourceWatch:
    """Keeps the figures in the worker's record fresh; the heartbeat itself never waits for them.

    Args:
        note: Takes fields of the worker's record.
    """

    def __init__(self, note: Callable[[dict[str, Any]], None]) -> None:
        self._note = note
        self._processes = Sideline(ProcessTree().read, _DEADLINE)
        gpus = GpuReader()
        self._gpus = Sideline(lambda: {"gpus": gpus.read()}, _DEADLINE)
        self._told: set[str] = set()

    async def read(self) -> None:
        """Read them once."""
        processes = await self._read("processes", self._processes, _NO_PROCESSES)
        self._note({**processes, **await self._read("gpus", self._gpus, _NO_GPUS)})

    async def _read(self, name: str, reading: Sideline[dict[str, Any]], missing: dict[str, Any]) -> dict[str, Any]:
        try:
            figures = await reading.ask()
        except Exception as error:  # noqa: BLE001 - whatever a driver does, it must not end a worker; it is told once
            if name not in self._told:
                self._told.add(name)
                log.warning("figures of this worker cannot be read", figures=name, reason=str(error))
            return missing
        self._told.discard(name)
        return figures
