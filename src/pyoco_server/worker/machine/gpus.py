"""The GPUs of this machine, by NVIDIA's own library where it is there (nvidia-ml-py, the extra ``gpu``)."""

import importlib
from collections.abc import Callable
from typing import Any

import structlog

from pyoco_server.model.worker import GpuFigures

log = structlog.get_logger(__name__)

_MOST = 64


class GpuReader:
    """Reads what the driver says. Everything here may block: call it beside the event loop."""

    def __init__(self) -> None:
        self._ready = False
        self._told = ""

    def read(self) -> list[GpuFigures]:
        """Give the figures of every GPU; none where there is no package, no driver or no GPU."""
        try:
            nvml: Any = importlib.import_module("pynvml")  # it has no types
        except ImportError:
            return []
        try:
            if not self._ready:
                nvml.nvmlInit()  # stays open: opening it anew takes a second on some machines
                self._ready = True
            found = [_figures(nvml, index) for index in range(min(nvml.nvmlDeviceGetCount(), _MOST))]
        except nvml.NVMLError as error:
            self._ready = False  # the driver may come, or come back
            self._tell(str(error))
            return []
        self._told = ""
        return found

    def _tell(self, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            log.info("no GPUs can be shown", reason=reason)


def _figures(nvml: Any, index: int) -> GpuFigures:
    """Read one GPU. Some do not tell everything (in parts, virtual, gone from the bus): that is ``None`` then."""

    def ask(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except nvml.NVMLError:
            return None

    handle = ask(lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return GpuFigures(index=index)
    name = ask(lambda: nvml.nvmlDeviceGetName(handle))
    memory = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    rates = ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    return GpuFigures(
        index=index,
        name=name.decode(errors="replace") if isinstance(name, bytes) else name,
        memory_used_bytes=memory.used if memory else None,
        memory_total_bytes=memory.total if memory else None,
        utilization_percent=rates.gpu if rates else None,
    )
