"""In a throw-away process: loads the pyoco plug-ins that a flow would find, and tells what they offer.

It reports before it loads each one, so that a plug-in that takes the process with it is known too.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any

from pyoco.discovery.loader import TaskLoader
from pyoco.discovery.plugins import PluginRegistry, iter_entry_points
from pyoco.schemas.config import PyocoConfig

from pyoco_server.worker.child.confinement.barrier import Barrier
from pyoco_server.worker.wheels.import_path import is_inside, use_environment

_LONGEST = 2000
_PR_SET_PDEATHSIG = 1


def check(directory: str | None) -> None:
    """Load every plug-in; a line of JSON before and after each.

    Args:
        directory: The environment, which is on the path already.
    """
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what plug-ins print is no report
    loader = TaskLoader(PyocoConfig(version=1, flow=None, tasks={}))
    for entry in iter_entry_points():
        distribution = getattr(entry, "dist", None)
        told: dict[str, Any] = {
            "plugin": entry.name,
            "package_name": distribution.metadata["Name"] if distribution else None,
            "package_version": distribution.version if distribution else None,
            "from_wheel": distribution is not None
            and directory is not None
            and is_inside(str(distribution.locate_file("x")), directory),
        }
        print(json.dumps({**told, "state": "loading"}), file=report)
        registry = PluginRegistry(loader, entry.name)
        try:
            hook = entry.load()
            if not callable(hook):
                raise TypeError(f"{entry.value} is not callable")
            hook(registry)
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit too
            print(
                json.dumps({**told, "state": "failed", "error": _shown(f"{type(error).__name__}: {error}")}),
                file=report,
            )
        else:
            names = [_shown(str(record["name"])) for record in registry.records]
            print(json.dumps({**told, "state": "loaded", "tasks": names}), file=report)
    print(json.dumps({"state": "done"}), file=report)
    report.flush()
    os._exit(0)  # threads that a plug-in started are not waited for


def _shown(text: str) -> str:
    """Give a text that UTF-8 can carry. (``model.text`` is not used here: its imports take longer than all else.)"""
    return text[:_LONGEST].encode("utf-8", "replace").decode("utf-8")


def main() -> None:
    """Entry point: ``argv`` holds the worker's process id, and what keeps this process from others.

    The environment's directory, or ``null``, comes over standard input when it is there.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a plug-in that never returns goes with its worker
    if os.getppid() != int(sys.argv[1]):
        return
    said = sys.stdin.read()
    if not said:
        return  # the build failed before
    directory = json.loads(said)
    setup = json.loads(sys.argv[2])
    barrier = Barrier(confine=setup["confine"], run_as=setup["run_as"])
    barrier.change_user()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # which another user does away with
    barrier.filter_calls(asking=False)
    barrier.put_up()
    use_environment(directory, behind=len(sys.path))
    sys.argv = ["pyoco-run"]
    check(directory)
