"""The files of a wheel's ``*.dist-info``: read with a bound each, for whoever reads them later may read them whole.

``importlib.metadata`` does, in every run's process; an ``entry_points.txt`` that it cannot read would take the entry
points of all other packages with it.
"""

import importlib.metadata
import os
import re
import zipfile
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from pyoco_server.model.wheels.file_name import WheelName
from pyoco_server.wheelfile.archive import Members, read_bounded, refuse

BOUNDS = {
    "METADATA": 2 << 20,
    "WHEEL": 64 << 10,
    "RECORD": 16 << 20,
    "entry_points.txt": 1 << 20,
    "top_level.txt": 1 << 20,
    "namespace_packages.txt": 1 << 20,
    "direct_url.json": 64 << 10,
    "INSTALLER": 64 << 10,
    "REQUESTED": 64 << 10,
}
"""Most bytes, unpacked, by name in any case."""
OTHERS = 16 << 20
"""Most bytes of each other file, such as licences."""
ALL = 64 << 20
"""Most bytes of all of them."""
_MOST_FIELDS = 10_000
_MOST_ENTRY_POINTS = 5_000
_SCRIPTS = ("console_scripts", "gui_scripts")
_SCRIPT = re.compile(r"[\w.+-][\w .+-]*")
_BY_NAME = {name.casefold(): bound for name, bound in BOUNDS.items()}


def check_bounds(members: Members, info: str) -> None:
    """Check the sizes that the files of the metadata declare; that they are true is seen when they are read.

    Args:
        members: The wheel's files.
        info: The folder.

    Raises:
        InvalidInput: one is too large; names it, its size and the bound.
    """
    total = 0
    for path, member in members.items():
        if not path.startswith(f"{info}/"):
            continue
        bound = _BY_NAME.get(path.removeprefix(f"{info}/").casefold(), OTHERS)
        if member.file_size > bound:
            refuse(
                f"the member {path!r} unpacks to {member.file_size} bytes; {bound} are accepted",
                "Metadata are read whole by many programs. Put data into the package's folder.",
            )
        total += member.file_size
    if total > ALL:
        refuse(f"the files of {info!r} unpack to {total} bytes; {ALL} are accepted")


def read_info(archive: zipfile.ZipFile, members: Members, path: str) -> bytes:
    """Read a file of the metadata that must be there.

    Raises:
        InvalidInput: it is not, or is too large.
    """
    member = members.get(path)
    if member is None:
        refuse(f"it has no {path}", "Build it with: uv build --wheel")
    return read_bounded(archive, member, BOUNDS[path.rpartition("/")[2]])


def headers(raw: bytes, path: str) -> Message:
    """Read METADATA or WHEEL.

    Raises:
        InvalidInput: it is no text, or has too many fields.
    """
    head = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").partition(b"\n\n")[0]
    fields = head.count(b"\n") + 1
    if fields > _MOST_FIELDS:
        refuse(f"the member {path!r} has {fields} lines of fields; {_MOST_FIELDS} are accepted")
    try:
        raw.decode()
    except UnicodeError:
        refuse(f"the member {path!r} is not UTF-8", "Build it with: uv build --wheel")
    return BytesHeaderParser().parsebytes(head + b"\n\n")


def check_metadata(metadata: Message, name: WheelName) -> None:
    """Check that METADATA agrees with the file name.

    Raises:
        InvalidInput: it does not.
    """
    for field in ("Name", "Version"):
        if len(metadata.get_all(field) or []) > 1:
            refuse(f"its METADATA has more than one {field}")
    said = str(metadata.get("Name") or ""), str(metadata.get("Version") or "")
    if not all(said):
        refuse("its METADATA has no Name or no Version")
    try:
        agrees = canonicalize_name(said[0]) == name.package and Version(said[1]) == name.version
    except InvalidVersion:
        agrees = False
    if not agrees:
        refuse(
            f"its METADATA says {said[0][:100]} {said[1][:100]}, its file name {name.package} {name.version}",
            "Upload the file under the name that the build gave it.",
        )


def check_tags(wheel: Message, name: WheelName) -> None:
    """Check that WHEEL is of a version that is known, and has every tag of the file name.

    Raises:
        InvalidInput: it does not.
    """
    if not str(wheel.get("Wheel-Version") or "").strip().startswith("1."):
        refuse(f"its WHEEL says Wheel-Version {str(wheel.get('Wheel-Version'))[:100]}; 1.x is known")
    said: set[Tag] = set()
    for line in (wheel.get_all("Tag") or [])[:1000]:
        text = str(line).strip()
        # "a.b.c-d.e.f-g.h.i" stands for every combination; none that is built needs more letters than this.
        said.update(parse_tag(text) if text.count("-") == 2 and len(text) <= 200 else ())
    missing = sorted(map(str, name.tags - said))
    if missing:
        refuse(
            f"its WHEEL does not have the tag {missing[0]} of its file name",
            "Upload the file under the name that the build gave it.",
        )


def scripts_of(archive: zipfile.ZipFile, members: Members, path: str) -> list[str]:
    """Check entry points, and give the names of the commands that an installer makes of them.

    Args:
        archive: The wheel.
        members: Its files.
        path: ``*.dist-info/entry_points.txt``, which need not be there.

    Raises:
        InvalidInput: they cannot be read, or a command would land elsewhere.
    """
    member = members.get(path)
    if member is None:
        return []
    raw = read_bounded(archive, member, BOUNDS["entry_points.txt"])
    if raw.count(b"\n") > _MOST_ENTRY_POINTS:
        refuse(f"the member {path!r} has more than {_MOST_ENTRY_POINTS} lines")
    try:
        text = raw.decode()
        found = list(_Text(text).entry_points)
    except UnicodeError:
        refuse(f"the member {path!r} is not UTF-8", "Build it with: uv build --wheel")
    except (ValueError, TypeError, AttributeError, KeyError):  # whatever this Python's own reader fails with
        refuse(
            f"the member {path!r} cannot be read: a line in it is no name = module:function",
            "It has sections such as [pyoco.tasks], and in each of them lines such as: name = module:function",
        )
    for entry in found:
        if not entry.group or not entry.name or not entry.value:
            refuse(f"the member {path!r} has an entry point without section, name or value")
        if entry.group in _SCRIPTS and (not _SCRIPT.fullmatch(entry.name) or entry.name in (".", "..")):
            refuse(f"the member {path!r} has a command that cannot be a file's name: {entry.name[:100]!r}")
    return [entry.name for entry in found if entry.group in _SCRIPTS]


class _Text(importlib.metadata.Distribution):
    """Entry points of a text, read as each process reads those that are installed."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "entry_points.txt" else None

    def locate_file(self, path: "str | os.PathLike[str]") -> Path:
        return Path(path)
