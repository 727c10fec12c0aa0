"""How a flow resolver is named, as far as that can be judged before anything is started."""

from pathlib import Path

from pyoco_server.errors import CommandFailed

_HINT = "Write module:function or path/file.py:function, such as: flows.py:resolve"


def check_spec(spec: str) -> None:
    """Check that a text may name a function, and that its file is there.

    Raises:
        CommandFailed: it is not so.
    """
    place, _, function = spec.rpartition(":")
    if not place or not all(part.isidentifier() for part in function.split(".")):
        raise CommandFailed(f"--flow-resolver {spec[:200]!r} names no function", hint=_HINT)
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise CommandFailed(f"--flow-resolver {spec[:200]!r}: there is no file {path.absolute()}", hint=_HINT)
    elif "/" in place:
        raise CommandFailed(f"--flow-resolver {spec[:200]!r}: {place[:200]!r} is no Python file (*.py)", hint=_HINT)
