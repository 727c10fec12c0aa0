"""A wheel as a zip archive: names, kinds and sizes of its members, read with bounds."""

import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from copy import copy
from typing import IO, BinaryIO, NoReturn, cast

from pyoco_server.errors import InvalidInput

MOST_MEMBERS = 50_000
"""Members, and folders, that a wheel may have."""
_DIRECTORY_BYTES = 8 << 20
"""Largest table of contents that is read."""
_UNPACKED_FACTOR = 4
"""How many times the largest wheel may unpack to."""
_RATIO = 100
_RATIO_FREE = 16 << 20
"""Up to this size the ratio does not count: small files of blanks are no bomb."""
_BLOCK = 1 << 20
_LONGEST_PATH = 512
_LONGEST_STEP = 255
_DEEPEST = 40
_LOCAL_HEADER = 30
_END = 22
_DRIVE = re.compile(r"[A-Za-z]:")
_NOT_IN_NAMES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Kinds of characters that the workers' installer, uv, does not unpack, and those that end a line."""
_ENCRYPTED = 0x1
_UTF8_NAME = 0x800

Members = dict[str, zipfile.ZipInfo]


def refuse(what: str, hint: str = "") -> NoReturn:
    """Refuse the wheel."""
    raise InvalidInput(f"the wheel is refused: {what}", hint=hint)


def open_wheel(file: BinaryIO) -> zipfile.ZipFile:
    """Open a wheel's table of contents, if it is not too large and the archive ends where the file does.

    Raises:
        InvalidInput: it is no zip archive, or more than one.
        zipfile.BadZipFile: it is a damaged one.
    """
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        refuse("the file is no zip archive", "Build it with: uv build --wheel")
    archive = zipfile.ZipFile(cast(IO[bytes], _Guarded(file)))
    # Another program might take what follows for the archive.
    size = file.seek(0, 2)
    file.seek(max(0, size - _END - len(archive.comment)))
    if file.read(4) != b"PK\x05\x06":
        refuse("there are bytes after the end of the zip archive", "Build it anew, and upload the file unchanged.")
    return archive


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


def check_members(archive: zipfile.ZipFile) -> tuple[Members, set[str]]:
    """Check names and kinds.

    Args:
        archive: The wheel.

    Returns:
        The files by name, and the folders.

    Raises:
        InvalidInput: something is wrong; names the member.
    """
    found = archive.infolist()
    if len(found) > MOST_MEMBERS:
        refuse(f"it has {len(found)} members; {MOST_MEMBERS} are accepted")
    members: Members = {}
    folders: set[str] = set()
    for info in found:
        path = _check_path(info)
        _check_kind(info, path)
        folder = path.endswith("/")
        for parent in parents(path.rstrip("/")):
            if parent in folders:
                break
            folders.add(parent)
        if folder:
            folders.add(path.rstrip("/"))
            if info.file_size:
                refuse(f"the member {path!r} is a folder with content")
            continue
        if path in members:
            refuse(f"the member {path!r} is there twice")
        members[path] = info
    if len(folders) > MOST_MEMBERS:
        refuse(f"it has {len(folders)} folders; {MOST_MEMBERS} are accepted")
    both = sorted(folders.intersection(members))
    if both:
        refuse(f"the member {both[0]!r} is both a file and a folder")
    return members, folders


def parents(path: str) -> Iterator[str]:
    """Return the folders that a path lies in, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def read_blocks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Return a member's bytes; one more than it declares is asked for, because an installer may not stop there.

    Raises:
        InvalidInput: they are not as many as it declares.
    """
    longer = copy(member)
    longer.file_size += 1
    size = 0
    with archive.open(longer) as content:
        while data := content.read(_BLOCK):
            size += len(data)
            yield data
    if size != member.file_size:
        refuse(f"the member {member.filename!r} does not have the {member.file_size} bytes that it declares")


def read_bounded(archive: zipfile.ZipFile, member: zipfile.ZipInfo, bound: int) -> bytes:
    """Read a member whole, if it has no more bytes than a bound, whatever it declares.

    Args:
        archive: The wheel.
        member: The member.
        bound: Bytes.

    Raises:
        InvalidInput: it has more.
    """
    if member.file_size > bound:
        refuse(f"the member {member.filename!r} has {member.file_size} bytes; {bound} are accepted")
    return b"".join(read_blocks(archive, member))  # never more than it declares and one block


def _check_kind(info: zipfile.ZipInfo, path: str) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refuse(f"the member {path!r} is a {'symbolic link' if kind == stat.S_IFLNK else 'special file'}")
    if info.flag_bits & _ENCRYPTED:
        refuse(f"the member {path!r} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        refuse(f"the member {path!r} is compressed in a way that installers do not know")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        refuse(f"the member {path!r} has two sizes")


def _check_path(info: zipfile.ZipInfo) -> str:
    path = info.orig_filename
    odd = None
    if not (path.isascii() and path.isprintable()) or "\\" in path:
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
    if len(parts) > _DEEPEST:
        refuse(f"the member {path[:80]!r}… lies {len(parts)} folders deep; {_DEEPEST} are accepted")
    return path


def check_sizes(archive: zipfile.ZipFile, max_bytes: int) -> None:
    """Check the sizes that all members together declare.

    Args:
        archive: The wheel.
        max_bytes: Largest wheel that is taken; sets how much it may unpack to.

    Raises:
        InvalidInput: they are too much, or the members share their bytes.
    """
    found = archive.infolist()
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
