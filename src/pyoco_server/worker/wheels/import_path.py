"""Where a wheel environment stands among the places that Python imports from.

Behind the standard library and behind everything that is installed for the worker itself, before the working directory
and the flow resolver's folder. So no wheel can put another ``pyoco``, ``pydantic`` or ``json`` before the one that the
worker was tested with: an upload cannot break it. What a flow names is found in a wheel before it is found in a file
that happens to lie where the worker was started. A wheel of a package that the worker itself has would never be
imported; it is left out and told (``WheelSync``).

The directory is only put on ``sys.path``. It is no site directory: a ``.pth`` file or a ``sitecustomize`` module in it
is never executed.
"""

import sys
from pathlib import Path


def use_environment(directory: str | None, *, behind: int) -> None:
    """Import from an environment's directory too.

    Args:
        directory: The environment; ``None`` for none.
        behind: How many entries of ``sys.path`` come before it.
    """
    if directory is not None:
        sys.path.insert(behind, directory)


def is_inside(file: str | Path | None, directory: str) -> bool:
    """Tell whether a file lies in a directory, by their names."""
    return file is not None and Path(directory) in Path(file).parents
