"""What a run's subprocesses find: the modules and commands that the run itself finds, in the same order.

``PYTHONPATH`` would put the wheel environment before the standard library and the worker's packages. So it names a
directory of ours, whose ``sitecustomize`` puts the run's own places behind everything that Python has by then.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from pyoco_server.worker.child import startup

_STARTUP = str(Path(startup.__file__).parent)


def show_to_subprocesses(places: Iterable[str], environment: str | None) -> None:
    """Let subprocesses import from a run's own places, and find the commands of its wheels.

    Args:
        places: Directories, in their order: the wheel environment, where the worker was started, the resolver's folder.
        environment: Directory of the wheel environment.
    """
    os.environ[startup.PLACES] = os.pathsep.join(dict.fromkeys(places))
    os.environ[startup.VERSION] = f"{sys.version_info[0]}.{sys.version_info[1]}"
    _put_first("PYTHONPATH", [_STARTUP])
    if environment is not None:
        _put_first("PATH", [str(Path(sys.executable).parent), str(Path(environment) / "bin")])


def _put_first(variable: str, places: list[str]) -> None:
    others = [place for place in os.environ.get(variable, "").split(os.pathsep) if place and place not in places]
    os.environ[variable] = os.pathsep.join([*places, *others])
