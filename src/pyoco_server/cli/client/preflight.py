"""Looks at a wheel before it is uploaded: does it offer tasks, and do they say how they are used?

A wheel without either works, as a library that flows import. But nobody would find a task that is neither listed nor
described, so the one who uploads is told, or stopped.
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pyoco_server.errors import InvalidInput

GROUP = "pyoco.tasks"
_LOAD_SEC = 60.0
_SCRIPT = Path(__file__).with_name("plugin_report.py")


class IssueKind(str, Enum):
    """What may be wrong with a wheel's plug-ins."""

    NO_ENTRY_POINTS = "no_entry_points"
    MISSING_USAGE = "missing_usage"
    CANNOT_LOAD = "cannot_load"


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong."""

    kind: IssueKind
    text: str


def look_at(wheel: Path) -> list[Issue]:
    """Find what is wrong with a wheel's plug-ins; their code is run, in a process of its own, to ask for their tasks.

    Raises:
        InvalidInput: it cannot be read as a wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if not _entry_points(archive):
                return [Issue(IssueKind.NO_ENTRY_POINTS, f"it has no entry point in the group {GROUP}")]
            with tempfile.TemporaryDirectory() as folder:
                archive.extractall(f"{folder}/wheel")
                return _issues(_load(Path(folder)))
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, KeyError, UnicodeError) as error:
        raise InvalidInput(
            f"{wheel} cannot be read as a wheel: {error}", hint="Build it with: uv build --wheel"
        ) from None


def _entry_points(archive: zipfile.ZipFile) -> list[str]:
    names = {name.split("/")[0] for name in archive.namelist() if "/" in name}
    infos = [name for name in names if name.endswith(".dist-info")]
    if not infos:
        raise KeyError("it has no folder *.dist-info")
    points = importlib.metadata.PathDistribution(zipfile.Path(archive, f"{infos[0]}/")).entry_points
    return [point.name for point in points.select(group=GROUP)]


def _load(folder: Path) -> list[dict[str, Any]] | str:
    """Give what the plug-ins tell, or why they tell nothing."""
    answer = folder / "report.json"
    # Isolated: what lies in the current directory is not what a worker has.
    command = [sys.executable, "-I", str(_SCRIPT), str(folder / "wheel"), str(answer)]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LOAD_SEC, check=False
        )
    except subprocess.TimeoutExpired:
        return f"its plug-ins do not load within {_LOAD_SEC:g} s"
    if done.returncode or not answer.is_file():
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return f"loading its plug-ins ends the process: {last[0][:300]}"
    found: list[dict[str, Any]] = json.loads(answer.read_text())
    return found


def _issues(report: list[dict[str, Any]] | str) -> list[Issue]:
    if isinstance(report, str):
        return [Issue(IssueKind.CANNOT_LOAD, report)]
    issues = []
    for plugin in report:
        name = plugin["name"]
        if plugin["error"]:
            issues.append(Issue(IssueKind.CANNOT_LOAD, f"the plug-in {name!r} does not load here: {plugin['error']}"))
        elif not plugin["tasks"]:
            issues.append(Issue(IssueKind.NO_ENTRY_POINTS, f"the plug-in {name!r} registers no task"))
        issues += [
            Issue(
                IssueKind.MISSING_USAGE,
                f"the task {task['name']!r} has no usage text (registry.task_info(…, usage='…'))",
            )
            for task in plugin["tasks"]
            if not task["usage"]
        ]
    return issues
