"""What a wheel's file name says, and how users name wheels."""

import math
import re
from typing import NamedTuple

from packaging.tags import Tag
from packaging.utils import BuildTag, InvalidName, InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from pyoco_server.errors import InvalidInput

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl")
_LONGEST_NAME = 200
_MOST_TAGS = 500
"""A name such as ``a.b.c-d.e.f-g.h.i`` stands for every combination."""
_NAME_HINT = "Upload the file under the name that the build gave it, such as task_cpu-0.1.0-py3-none-any.whl."
_FILTER_HINT = "Name the file as GET /wheels does, such as: ?wheel_name=task_cpu-0.1.0-py3-none-any.whl"
_PIN_HINT = "Name a package and a version that is stored, such as: task-cpu==0.1.0"


class WheelName(NamedTuple):
    """What a wheel's file name says."""

    package: str
    """The package's normalised name."""
    version: Version
    build: BuildTag
    tags: frozenset[Tag]
    """The interpreters and platforms that can install it."""
    file_name: str


def parse_wheel_name(file_name: str) -> WheelName:
    """Read a wheel's file name.

    Raises:
        InvalidInput: it is not the name of a wheel.
    """
    if not file_name.endswith(".whl"):
        raise InvalidInput(f"{file_name[:_LONGEST_NAME]!r} is not the name of a wheel (.whl)", hint=_NAME_HINT)
    if not _FILE_NAME.fullmatch(file_name) or len(file_name) > _LONGEST_NAME:
        raise InvalidInput(
            f"{file_name[:_LONGEST_NAME]!r} is not the name of a wheel: it may have up to {_LONGEST_NAME} letters, "
            "digits, '.', '_', '+', '!' and '-'",
            hint=_NAME_HINT,
        )
    choices = [part.count(".") + 1 for part in file_name.removesuffix(".whl").split("-")[-3:]]
    if math.prod(choices) > _MOST_TAGS:
        raise InvalidInput(f"{file_name!r} names too many interpreters and platforms", hint=_NAME_HINT)
    try:
        package, version, build, tags = parse_wheel_filename(file_name)
    except InvalidWheelFilename as error:
        raise InvalidInput(f"{file_name!r} is not the name of a wheel: {error}", hint=_NAME_HINT) from None
    return WheelName(package, version, build, tags, file_name)


def read_file_name(text: str) -> str | None:
    """Read a filter that names a wheel's file; ``None`` for a blank one.

    Raises:
        InvalidInput: no wheel's file can be called so.
    """
    name = text.strip()
    if name and (not _FILE_NAME.fullmatch(name) or len(name) > _LONGEST_NAME):
        raise InvalidInput(f"wheel_name is {name[:_LONGEST_NAME]!r}, which no wheel is called", hint=_FILTER_HINT)
    return name or None


def parse_pin(text: str) -> tuple[str, Version]:
    """Read ``NAME==VERSION``.

    Returns:
        The package's normalised name, and the version.

    Raises:
        InvalidInput: it is none.
    """
    name, separator, version = text.partition("==")
    try:
        if separator:
            return package_name(name), Version(version.strip())
    except InvalidVersion:
        pass
    raise InvalidInput(f"{text[:_LONGEST_NAME]!r} is not NAME==VERSION", hint=_PIN_HINT)


def package_name(text: str) -> str:
    """Normalise a package's name.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return canonicalize_name(text.strip(), validate=True)
    except InvalidName:
        raise InvalidInput(f"{text[:_LONGEST_NAME]!r} is not the name of a package", hint=_PIN_HINT) from None
