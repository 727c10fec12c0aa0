"""Looks into an uploaded wheel before it is stored: is it one, and would it stay where it belongs?

Nothing is unpacked to disk. Every member is read once, so that sizes and checksums are those that an installer will
see.
"""

import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from typing import IO, BinaryIO, NoReturn, cast

from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from pyoco_server.errors import InvalidInput
from pyoco_server.gateway.wheel_record import Record
from pyoco_server.model.wheel_name import WheelName

MOST_MEMBERS = 50_000
_DIRECTORY_BYTES = 8 << 20
"""Largest table of contents that is read."""
_UNPACKED_FACTOR = 4
"""How many times the largest wheel may unpack to."""
_RATIO = 100
_RATIO_FREE = 16 << 20
"""Up to this size the ratio does not count: small files of blanks are no bomb."""
_BLOCK = 1 << 20
_INFO_BYTES = 16 << 20
_LONGEST_PATH = 512
_LONGEST_STEP = 255
_LOCAL_HEADER = 30
_SELF = {"pyoco", "pyoco-server"}
_OWN_MODULES = {"pyoco", "pyoco_server"}
_STARTUP = {"sitecustomize", "usercustomize"}
_DRIVE = re.compile(r"[A-Za-z]:")
_NOT_IN_NAMES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Kinds of characters that the workers' installer, uv, does not unpack, and those that end a line."""
_ENCRYPTED = 0x1
_UTF8_NAME = 0x800


@dataclass(frozen=True)
class WheelContent:
    """What a good wheel's metadata says."""

    requires_python: str | None


def check_wheel(file: BinaryIO, name: WheelName, max_bytes: int) -> WheelContent:
    """Check a wheel; blocks for as long as its unpacking takes.

    Args:
        file: The wheel.
        name: What its file name says.
        max_bytes: Largest wheel that is taken; sets how much it may unpack to.

    Raises:
        InvalidInput: it is no wheel, does not agree with its name, or would harm who installs it; names the member.
    """
    if name.package in _SELF:
        refuse(f"{name.package} belongs to pyoco-server itself", "Give the package another name.")
    try:
        if file.read(4) != b"PK\x03\x04":
            refuse("the file is no zip archive", "Build it with: uv build --wheel")
        with zipfile.ZipFile(cast(IO[bytes], _Guarded(file))) as archive:
            members = _check_members(archive, max_bytes)
            info = _check_layout(members, name)
            metadata = _headers(archive, members, f"{info}/METADATA")
            _check_metadata(metadata, name)
            _check_tags(_headers(archive, members, f"{info}/WHEEL"), name)
            record = Record(archive.read(_member(members, f"{info}/RECORD")), f"{info}/RECORD")
            for path, member in members.items():
                record.check(path, _read(archive, member))
            record.finish(members)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, UnicodeError) as error:
        refuse(f"the file is no good zip archive: {error}", "Build it anew, and upload the file unchanged.")
    requires = str(metadata.get("Requires-Python") or "").strip()
    return WheelContent(requires or None)


def refuse(what: str, hint: str = "") -> NoReturn:
    """Refuse the wheel."""
    raise InvalidInput(f"the wheel is refused: {what}", hint=hint)


class _Guarded:
    """The file as zipfile sees it: it would read a table of contents of any size at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(_DIRECTORY_BYTES + 1 if size < 0 else min(size, _DIRECTORY_BYTES + 1))
        if len(data) > _DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its table of contents has more than {_DIRECTORY_BYTES} bytes")
        return data


def _check_members(archive: zipfile.ZipFile, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Check names, kinds and declared sizes; give the files by name."""
    found = archive.infolist()
    if len(found) > MOST_MEMBERS:
        refuse(f"it has {len(found)} members; {MOST_MEMBERS} are accepted")
    members: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for info in found:
        path = _check_path(info)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            refuse(f"the member {path!r} is a {'symbolic link' if kind == stat.S_IFLNK else 'special file'}")
        if info.flag_bits & _ENCRYPTED:
            refuse(f"the member {path!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            refuse(f"the member {path!r} is compressed in a way that installers do not know")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            refuse(f"the member {path!r} has two sizes")
        folders.update(_parents(path.rstrip("/")))
        if path.endswith("/"):
            folders.add(path.rstrip("/"))
            if info.file_size:
                refuse(f"the member {path!r} is a folder with content")
            continue
        if path in members:
            refuse(f"the member {path!r} is there twice")
        members[path] = info
    both = sorted(folders.intersection(members))
    if both:
        refuse(f"the member {both[0]!r} is both a file and a folder")
    _check_sizes(found, max_bytes)
    return members


def _check_path(info: zipfile.ZipInfo) -> str:
    path = info.orig_filename
    odd = next((char for char in path if char == "\\" or unicodedata.category(char) in _NOT_IN_NAMES), None)
    if odd is not None:
        called = unicodedata.name(odd, "a control character")
        refuse(
            f"the member {path[:_LONGEST_PATH]!r} has a character in its name that installers do not take: "
            f"U+{ord(odd):04X}, {called}",
            "Spaces, letters and signs of all languages are taken, control and invisible characters are not.",
        )
    if path != info.filename:
        refuse(f"the member {path[:_LONGEST_PATH]!r} has a name that ends before its end")
    if len(path.encode("utf-8", "replace")) > _LONGEST_PATH:
        refuse(f"the name of the member {path[:80]!r}… is longer than {_LONGEST_PATH} bytes")
    if path.startswith("/") or _DRIVE.match(path):
        refuse(f"the member {path!r} has an absolute path")
    parts = path.removesuffix("/").split("/")
    if ".." in parts:
        refuse(f"the member {path!r} leads out of the folder that it is installed to")
    if any(len(part.encode("utf-8", "replace")) > _LONGEST_STEP for part in parts):
        refuse(f"the member {path[:80]!r}… has a name that is longer than {_LONGEST_STEP} bytes, and no disk keeps it")
    if "." in parts or "" in parts:
        refuse(f"the member {path!r} has an empty step in its path")
    return path


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _check_sizes(found: list[zipfile.ZipInfo], max_bytes: int) -> None:
    unpacked = sum(info.file_size for info in found)
    packed = sum(info.compress_size for info in found)
    if unpacked > _UNPACKED_FACTOR * max_bytes:
        refuse(f"it unpacks to {unpacked} bytes; {_UNPACKED_FACTOR * max_bytes} are accepted")
    if unpacked > max(_RATIO_FREE, _RATIO * packed):
        refuse(f"it unpacks from {packed} to {unpacked} bytes: a zip bomb")
    # Members that share their bytes unpack to more than the file holds; bytes before the first one may be another zip
    # archive, which another program would read in this one's place.
    end = 0
    for info in sorted(found, key=lambda info: info.header_offset):
        if info.header_offset < end:
            refuse(f"the member {info.filename!r} overlaps another one")
        if end == 0 != info.header_offset:
            refuse(f"there are bytes before its first member {info.filename!r}")
        name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8_NAME else "cp437")
        end = info.header_offset + _LOCAL_HEADER + len(name) + info.compress_size


def _check_layout(members: dict[str, zipfile.ZipInfo], name: WheelName) -> str:
    """Check where each member would be installed to; give the folder of the metadata."""
    infos = {path.split("/")[0] for path in members if "/" in path and path.split("/")[0].endswith(".dist-info")}
    if len(infos) != 1:
        refuse(
            f"it has {len(infos)} folders *.dist-info, not one" + (f": {', '.join(sorted(infos)[:5])}" if infos else "")
        )
    info = infos.pop()
    if not _agrees(info.removesuffix(".dist-info"), name):
        refuse(f"the folder {info!r} does not agree with the file name {name.file_name!r}")
    landed: dict[str, str] = {}
    for path in members:
        place = _place(path, name)
        other = landed.setdefault(place, path)
        if other != path:
            refuse(f"the members {other!r} and {path!r} would be installed to the same place")
        first, deeper, _ = place.partition("/")
        module = first.partition(".")[0]
        if module in _OWN_MODULES:
            refuse(f"the member {path!r} would overwrite {module}, which belongs to pyoco-server itself")
        if first.endswith((".dist-info", ".egg-info")) and first != info:
            refuse(f"the member {path!r} would pass for another package's metadata")
        if not deeper and first.endswith(".pth"):
            refuse(f"the member {path!r} would run at every start of Python", "Put the file into a package's folder.")
        if module in _STARTUP:
            refuse(f"the member {path!r} would run at every start of Python", "Give the module another name.")
    return info


def _place(path: str, name: WheelName) -> str:
    """Give where a member is installed to, relative to the folder of the modules."""
    first, _, rest = path.partition("/")
    if not first.endswith(".data"):
        return path
    scheme, _, inner = rest.partition("/")
    if not _agrees(first.removesuffix(".data"), name) or not inner:
        refuse(f"the folder of the member {path!r} does not agree with the file name {name.file_name!r}")
    if scheme in ("purelib", "platlib", "data"):
        return inner
    if scheme in ("scripts", "headers"):
        return f"{'bin' if scheme == 'scripts' else 'include'}/{inner}"
    return refuse(f"the member {path!r} is for a place that installers do not know")


def _agrees(folder: str, name: WheelName) -> bool:
    package, _, version = folder.partition("-")
    try:
        return canonicalize_name(package) == name.package and Version(version) == name.version
    except InvalidVersion:
        return False


def _member(members: dict[str, zipfile.ZipInfo], path: str) -> zipfile.ZipInfo:
    member = members.get(path)
    if member is None:
        refuse(f"it has no {path}", "Build it with: uv build --wheel")
    if member.file_size > _INFO_BYTES:
        refuse(f"the member {path!r} has more than {_INFO_BYTES} bytes")
    return member


def _headers(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], path: str) -> Message:
    return BytesHeaderParser().parsebytes(archive.read(_member(members, path)))


def _check_metadata(metadata: Message, name: WheelName) -> None:
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


def _check_tags(wheel: Message, name: WheelName) -> None:
    if not str(wheel.get("Wheel-Version") or "").strip().startswith("1."):
        refuse(f"its WHEEL says Wheel-Version {wheel.get('Wheel-Version')}; 1.x is known")
    said: set[Tag] = set()
    for line in (wheel.get_all("Tag") or [])[:1000]:
        said.update(parse_tag(str(line).strip()) if str(line).count("-") == 2 else ())
    missing = sorted(map(str, name.tags - said))
    if missing:
        refuse(
            f"its WHEEL does not have the tag {missing[0]} of its file name",
            "Upload the file under the name that the build gave it.",
        )


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Give a member's bytes; one more than it declares is asked for, because an installer may not stop there."""
    longer = copy(member)
    longer.file_size += 1
    size = 0
    with archive.open(longer) as content:
        while data := content.read(_BLOCK):
            size += len(data)
            yield data
    if size != member.file_size:
        refuse(f"the member {member.filename!r} does not have the {member.file_size} bytes that it declares")
