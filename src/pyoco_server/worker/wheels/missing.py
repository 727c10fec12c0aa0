"""Why a module is missing, as far as the worker's wheels explain it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pyoco_server.errors import InvalidInput
from pyoco_server.model.wheels.file_name import parse_wheel_name
from pyoco_server.worker.wheels.installer import shorten

_MODULE = re.compile(r"(?:[Nn]o module named|uses unknown task) '([^'/]{1,200})")
"""A task of a plug-in is named ``plugin/task``."""
_SHOWN = 3


class LeftOut(NamedTuple):
    """A stored wheel that a worker does not use.

    Args:
        wheel_name: Its file name.
        reason: Why, in a sentence.
        is_meant: Whether it is meant for this worker, by its tags.
    """

    wheel_name: str
    reason: str
    is_meant: bool = True


def explain_missing(error: str, left_out: Sequence[LeftOut], failure: str | None) -> str:
    """Return what the wheels explain of a module that was not found, as a sentence to follow; nothing if nothing.

    A module need not be called like its wheel. So where no wheel has the module's name, all of those that are meant
    for the worker are named.

    Args:
        error: What was said of the module.
        left_out: The wheels that the worker does not use.
        failure: Why the worker is not in step with the registry, if it is not.
    """
    found = _MODULE.search(error)
    if found is None:
        return ""
    module = found[1].partition(".")[0].lower()
    named = [wheel for wheel in left_out if _may_hold(wheel.wheel_name, module)]
    parts = []
    if named:
        parts.append(f"This worker does not use the wheel {_listed(named)}")
    elif others := [wheel for wheel in left_out if wheel.is_meant]:
        parts.append(f"If a wheel has it: this worker leaves out {_listed(others)}")
    if failure:
        parts.append(f"The worker's wheels are not in step: {shorten(failure)}")
    between = " " if error.endswith((".", "?")) else ". "
    return between + ". ".join(parts) if parts else ""


def _may_hold(wheel_name: str, module: str) -> bool:
    """Whether a module may be in a wheel, by their names."""
    try:
        package = parse_wheel_name(wheel_name).package.replace("-", "_").replace(".", "_")
    except InvalidInput:
        package = wheel_name.partition("-")[0].lower()
    return package == module or package.startswith(f"{module}_") or module.startswith(f"{package}_")


def _listed(wheels: Sequence[LeftOut]) -> str:
    shown = ", ".join(f"{wheel.wheel_name} ({shorten(wheel.reason)})" for wheel in wheels[:_SHOWN])
    return shown + (f" and {len(wheels) - _SHOWN} more" if len(wheels) > _SHOWN else "")
