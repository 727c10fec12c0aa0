"""Settings that mean one thing to the existing system and another one here, found in the same environment.

Both read the same variables and the same ``.env``. Here ``${NAME}`` in a value of that file stands for a variable, and
a comment may follow a quoted value. The existing system has rules of its own.
"""

import codecs
import os
import re
from pathlib import Path

from dotenv import dotenv_values

from pyoco_server.settings.environment import Settings, dotenv_path, variable

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEANS = {
    "PYOCO_WORKERS_KV_TTL_SEC": "it has no effect here: workers' records do not expire by themselves",
    "PYOCO_CONSUMER_MAX_DELIVER": "it does not bound a run's attempts here: PYOCO_RUN_MAX_ATTEMPTS (3) does",
    "PYOCO_WHEEL_MAX_BYTES": "it bounds one wheel here, and never all of them together",
}
"""What a variable is for here, where that is not what it is for there."""


def read_otherwise() -> list[tuple[str, str]]:
    """Return the variables that are set and mean something else here, each with the reason; never a value."""
    path = dotenv_path()
    ours = _of_file_ours(path)
    theirs = _of_file_theirs(path)
    known = {variable(field) for field in Settings.model_fields}
    read_apart = [
        name
        for name in sorted(known & (ours.keys() | theirs.keys()))
        if not os.environ.get(name) and ours.get(name, "") != theirs.get(name, "")
    ]
    reason = f"its line in {path} has ${{NAME}}, here the value of that variable, or a comment behind a quoted value"
    return [
        *((name, reason) for name in read_apart),
        *((name, means) for name, means in _MEANS.items() if os.environ.get(name) or ours.get(name)),
    ]


def _of_file_ours(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    return {name: value for name, value in dotenv_values(path, encoding="utf-8").items() if value is not None}


def _of_file_theirs(path: Path | None) -> dict[str, str]:
    """Read a file by the rules of the existing system: nothing is put in, and the last quote ends the value."""
    if path is None or not path.is_file():
        return {}
    values = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and _NAME.fullmatch(name.strip()):
            values[name.strip()] = _their_value(value.strip())
    return values


def _their_value(value: str) -> str:
    if value[:1] in ("'", '"') and value[0] == value[-1]:
        inside = value[1:-1]
        if value[0] == "'":
            return inside
        try:
            return codecs.decode(inside, "unicode_escape")
        except UnicodeDecodeError:
            return inside
    return value.partition(" #")[0].strip()
