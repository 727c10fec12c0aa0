"""The pyoco plug-ins of an environment: whether they load, and what they offer."""

import asyncio
import contextlib
import json
import os
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from pyoco_server.settings.environment import without_secrets
from pyoco_server.wheelfile.metadata import BOUNDS
from pyoco_server.worker.machine.apart import TOGETHER, Apart
from pyoco_server.worker.wheels.installer import BuildFailed, Helper, shorten

PLUGINS = "pyoco.tasks"
"""The entry points that pyoco looks for."""
_SAID = {"state", "plugin", "package_name", "package_version", "from_wheel"}
_CHECK = """\
import sys
sys.path[:1] == [''] and sys.path.pop(0)
from pyoco_server.worker.wheels.plugin_check import main
main()
"""


@dataclass(frozen=True)
class WheelFile:
    """A wheel on this machine, whose bytes have been checked against its digest."""

    name: str
    sha256: str
    package: str
    version: str
    path: Path
    stored_at: float = 0.0
    since: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Since when its package has had each of its modules and files, as far as that is known (unix seconds)."""


class WheelsBroken(Exception):
    """Some wheels of the set cannot be used.

    Args:
        reasons: Why, by the wheel's name.
        machine: Those of which the machine may be at fault: there was no room for them, for one.
    """

    def __init__(self, reasons: dict[str, str], machine: Iterable[str] = ()) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
        self.reasons = reasons
        self.machine = frozenset(machine)


class CheckFailed(BuildFailed):
    """The plug-ins of an environment cannot be checked, and no single wheel is known to be the reason."""


async def start_check(folder: Path, apart: Apart = TOGETHER) -> Helper:
    """Start a process that will load plug-ins as soon as it is told where from.

    Args:
        folder: Where it works.
        apart: What keeps it from others: it runs code of wheels, as a run does.
    """
    command = [sys.executable, "-c", _CHECK, str(os.getpid()), json.dumps(apart.for_children())]
    return await Helper.start(command, folder=folder, environment=without_secrets(os.environ))


def offer_plugins(wheels: Sequence[WheelFile]) -> bool:
    """Tell whether a flow would find any plug-in: the worker's own, or one of a wheel."""
    if entry_points(group=PLUGINS):
        return True
    for wheel in wheels:
        with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(wheel.path) as archive:
            for name in archive.namelist():
                if name.endswith(".dist-info/entry_points.txt") and _names_plugins(archive, name):
                    return True
    return False


def _names_plugins(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as content:
        return PLUGINS.encode() in content.read(BOUNDS["entry_points.txt"])


async def check_plugins(
    check: Helper, target: Path | None, wheels: Sequence[WheelFile], *, timeout: float, stop: asyncio.Event
) -> list[dict[str, Any]]:
    """Load every plug-in in a throw-away process.

    Args:
        check: That process.
        target: The environment; ``None`` for the worker's own plug-ins alone.
        wheels: What the environment holds.
        timeout: Seconds.
        stop: Ends it early.

    Returns:
        What each plug-in offers.

    Raises:
        WheelsBroken: plug-ins of wheels do not load.
        CheckFailed: that cannot be told.
        BuildFailed: the worker is stopping.
    """
    ended = await check.finish(timeout, stop, json.dumps(str(target) if target else None).encode())
    if stop.is_set():
        raise BuildFailed("the worker is stopping")
    reports = _parse(ended.output)
    broken = {_wheel_of(report, wheels): str(report.get("error"))
              for report in reports if report["state"] == "failed" and report["from_wheel"]}  # fmt: skip
    if not reports or reports[-1]["state"] != "done":
        last = reports[-1] if reports else {}
        how = f"took longer than {timeout:g} s" if ended.timed_out else f"ended with exit code {ended.code}"
        if not last.get("from_wheel"):
            raise CheckFailed(f"the process that checks plug-ins {how}: {shorten(ended.errors)}")
        broken[_wheel_of(last, wheels)] = f"the process that loaded plug-in {last['plugin']!r} {how}"
    if broken:
        raise WheelsBroken({name: f"a plug-in does not load: {reason}" for name, reason in broken.items()})
    shown = ("plugin", "package_name", "package_version", "tasks", "error")
    return [
        {name: report[name] for name in shown if name in report}
        for report in reports
        if report["state"] in ("loaded", "failed")
    ]


def _wheel_of(report: dict[str, Any], wheels: Sequence[WheelFile]) -> str:
    for wheel in wheels:
        if wheel.package == report["package_name"]:
            return wheel.name
    return str(report["package_name"])


def _parse(output: bytes) -> list[dict[str, Any]]:
    reports = []
    for line in output.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            report = json.loads(line)
            # A plug-in can write here, too.
            if isinstance(report, dict) and (report.get("state") == "done" or report.keys() >= _SAID):
                if report.get("package_name"):
                    report["package_name"] = canonicalize_name(str(report["package_name"]))
                reports.append(report)
    return reports
