"""Tells which tasks the plug-ins in a folder register, and which of them say how they are used.

A program of its own: it runs the code of the wheel that is looked at. Arguments: the folder, and the file to write to.
"""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

from pyoco.discovery.plugins import PluginRegistry

GROUP = "pyoco.tasks"


class _Loader:
    """What the registry tells of tasks; they are in its own records, too."""

    def _register_task(self, name: str, task: Any) -> None:
        pass


def report(folder: str) -> list[dict[str, Any]]:
    """Give for each entry point its ``name``, its ``tasks`` (name, and whether it has a usage text), its ``error``."""
    found = []
    for distribution in importlib.metadata.distributions(path=[folder]):
        for entry in distribution.entry_points.select(group=GROUP):
            registry = PluginRegistry(_Loader(), entry.name)
            error = None
            try:
                entry.load()(registry)
            except BaseException as raised:  # noqa: BLE001 - code of a stranger: SystemExit too is its error
                error = f"{type(raised).__name__}: {raised}"
            infos = registry.task_infos
            tasks = [
                {"name": name, "usage": bool(name in infos and (infos[name].usage or "").strip())}
                for name in registry.registered_names
            ]
            found.append({"name": entry.name, "value": entry.value, "tasks": tasks, "error": error})
    return found


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps(report(sys.argv[1])))
