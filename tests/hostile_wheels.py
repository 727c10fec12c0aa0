"""Wheels that somebody made to do harm: each is refused with a sentence, or installs without any."""

import io
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.wheels import wheel_members, write_wheel


@dataclass(frozen=True)
class Hostile:
    """A wheel.

    Args:
        name: What it tries.
        make: Gives the file's bytes, for a package of that name and version 1.
        said: A part of the sentence with which it is refused; ``None`` where it may be installed.
        tag: Interpreter, ABI and platform in its file name.
    """

    name: str
    make: Callable[[str], bytes]
    said: str | None
    tag: str = "py3-none-any"

    def write(self, folder: Path, package: str) -> Path:
        """Write it under the name that a build would choose."""
        path = folder / f"{package}-1-{self.tag}.whl"
        path.write_bytes(self.make(package))
        return path


def members_of(package: str, **options: Any) -> dict[str, str | bytes]:
    """Return the members of a small good wheel, all but RECORD."""
    return wheel_members(package, "1", **options)


def zipped(members: dict[str, str | bytes], *, record: bool = True) -> bytes:
    """Return a wheel's bytes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_wheel(file, members, record=record)  # type: ignore[arg-type]
    return file.getvalue()


def _member(path: str, content: str | bytes = "x") -> Callable[[str], bytes]:
    """Make a good wheel with one more member; ``{p}`` in its path is the package, ``{i}`` its metadata's folder."""

    def make(package: str) -> bytes:
        return zipped({**members_of(package), path.format(p=package, i=f"{package}-1.dist-info"): content})

    return make


def _info(file: str, content: str | bytes) -> Callable[[str], bytes]:
    """Make a wheel with another file in its metadata; ``{p}`` in a text is the package."""

    def make(package: str) -> bytes:
        text = content.replace("{p}", package) if isinstance(content, str) else content
        return zipped({**members_of(package), f"{package}-1.dist-info/{file}": text})

    return make


def _without(file: str) -> Callable[[str], bytes]:
    def make(package: str) -> bytes:
        members = members_of(package)
        members.pop(f"{package}-1.dist-info/{file}", None)
        return zipped(members, record=file != "RECORD")

    return make


def _info_member(change: Callable[[zipfile.ZipInfo], object], content: str = "") -> Callable[[str], bytes]:
    """Make a wheel with a member whose head is changed."""

    def make(package: str) -> bytes:
        file = io.BytesIO(zipped(members_of(package)))
        with zipfile.ZipFile(file, "a") as archive:
            info = zipfile.ZipInfo(f"{package}/odd")
            change(info)
            archive.writestr(info, content)
        return file.getvalue()

    return make


def _attributes(mode: int) -> Callable[[str], bytes]:
    return _info_member(lambda info: setattr(info, "external_attr", mode << 16), "/etc/passwd")


def _patched(change: Callable[[bytearray, str], bytes | bytearray | None]) -> Callable[[str], bytes]:
    """Make a wheel whose bytes are changed afterwards; it has a stored member ``data`` of 5,000 zeros."""

    def make(package: str) -> bytes:
        file = io.BytesIO(zipped({**members_of(package), f"{package}-1.dist-info/RECORD": ""}))
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(f"{package}/data", b"0" * 5000)
            archive.writestr(f"{package}/more", b"1" * 5000)
        raw = bytearray(file.getvalue())
        changed = change(raw, package)
        return bytes(raw if changed is None else changed)

    return make


def _entry(raw: bytearray, path: str) -> int:
    """Find a member's line in the table of contents."""
    at = raw.rindex(path.encode()) - 46
    assert raw[at : at + 4] == b"PK\x01\x02"
    return at


def _set(offset: int, form: str, value: int, path: str = "{p}/data") -> Callable[[str], bytes]:
    def change(raw: bytearray, package: str) -> None:
        struct.pack_into(form, raw, _entry(raw, path.format(p=package)) + offset, value)

    return _patched(change)


def _both_sizes(raw: bytearray, package: str) -> None:
    """Declare 50 bytes where there are 5,000, with the checksum of 50, in both places."""
    at = _entry(raw, f"{package}/data")
    local = struct.unpack_from("<I", raw, at + 42)[0]
    crc = zlib.crc32(b"0" * 50)
    struct.pack_into("<I", raw, at + 16, crc)
    struct.pack_into("<I", raw, at + 24, 50)
    struct.pack_into("<I", raw, local + 14, crc)
    struct.pack_into("<I", raw, local + 22, 50)


def _overlap(raw: bytearray, package: str) -> None:
    first = struct.unpack_from("<I", raw, _entry(raw, f"{package}/data") + 42)[0]
    struct.pack_into("<I", raw, _entry(raw, f"{package}/more") + 42, first)


def _renamed_inside(raw: bytearray, package: str) -> None:
    """Let the member's own head have another name than the table of contents."""
    local = struct.unpack_from("<I", raw, _entry(raw, f"{package}/data") + 42)[0]
    raw[local + 30 : local + 30 + len(package)] = b"Z" * len(package)


def _twice(package: str) -> bytes:
    file = io.BytesIO(zipped(members_of(package)))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(f"{package}/__init__.py", "VERSION = 'other'")
    return file.getvalue()


def _many(count: int, size: int) -> Callable[[str], bytes]:
    def make(package: str) -> bytes:
        return zipped({**members_of(package), **{f"{package}/{number}": bytes(size) for number in range(count)},
                       f"{package}-1.dist-info/RECORD": ""})  # fmt: skip

    return make


def _deep_and_wide(package: str) -> bytes:
    paths = [f"{package}/{branch}/" + "/".join("d" * 30) + "/x" for branch in range(2000)]
    return zipped({**members_of(package), **dict.fromkeys(paths, ""), f"{package}-1.dist-info/RECORD": ""})


def _commented(comment: bytes) -> Callable[[str], bytes]:
    def make(package: str) -> bytes:
        file = io.BytesIO(zipped(members_of(package)))
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = comment
        return file.getvalue()

    return make


def _good(package: str) -> bytes:
    return zipped(members_of(package))


MEBI = 1 << 20
_FIELDS = "Metadata-Version: 2.1\nName: {p}\nVersion: 1\n"
_WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

PATHS = [
    Hostile("up", _member("../x"), "leads out"),
    Hostile("up from a folder", _member("{p}/../../x"), "leads out"),
    Hostile("up at the end", _member("{p}/.."), "leads out"),
    Hostile("up in scripts", _member("{p}-1.data/scripts/../../x"), "leads out"),
    Hostile("up in data", _member("{p}-1.data/data/../x"), "leads out"),
    Hostile("absolute", _member("/tmp/x"), "absolute"),
    Hostile("absolute in data", _member("{p}-1.data/data//tmp/x"), "empty step"),
    Hostile("a drive", _member("C:/x"), "absolute"),
    Hostile("backslashes", _member("..\\..\\x"), "character"),
    Hostile("a step that is a dot", _member("{p}/./x"), "empty step"),
    Hostile("a line end", _member("{p}/a\nb"), "character"),
    Hostile("an escape sequence", _member("{p}/\x1b[2J"), "character"),
    Hostile("letters from right to left", _member("{p}/\u202etxt.py"), "character"),
    Hostile("a letter of no width", _member("{p}/a\u200bb.py"), "character"),
    Hostile("names that look the same", _member("{p}/__іnit__.py"), None),  # noqa: RUF001 - that is the point
    Hostile("two spellings of one letter", _member("{p}/e\u0301.txt"), None),
    Hostile("a name of another case", _member("{p}/__INIT__.py"), None),
    Hostile("full width dots", _member("{p}/\uff0e\uff0e\uff0fx"), None),
    Hostile("a long name", _member("{p}/" + "n" * 300), "longer than 255"),
    Hostile("a long path", _member("/".join(["{p}", *["n" * 60] * 9])), "longer than 512"),
    Hostile("a deep path", _member("{p}/" + "/".join("d" * 60)), "folders deep"),
    Hostile("a name of spaces", _member("{p}/ "), None),
    Hostile("a device's name", _member("{p}/CON"), None),
    Hostile("a shell's words", _member("{p}/$(reboot).py"), None),
]
OURS = [
    *[
        Hostile(f"ours: {path}", _member(path), "keeps beside")
        for path in (
            "pyoco-environment.json", "pyoco-environment.json/x", "PYOCO-Environment.JSON/x", "pyoco-environment.json ",
            "\uff50yoco-environment.json/x", ".lock", ".lock/x", ".LOCK/x", ".Lock", ".loc\u212a",
            "{p}-1.data/purelib/.lock/x", "{p}-1.data/platlib/pyoco-environment.json/x", "{p}-1.data/data/.lock",
            "{p}-1.data/data/PYOCO-ENVIRONMENT.json", "{p}-1.data/scripts/.lock", "{p}-1.data/headers/.lock/x",
            ".pyoco/x",
        )
    ],
    Hostile("a folder of ours without a file", _member(".lock/", ""), "keeps beside"),
    Hostile("the server", _member("pyoco_server/__init__.py"), "overwrite"),
    Hostile("the server in another case", _member("PYOCO_Server/__init__.py"), "overwrite"),
    Hostile("the engine, compiled", _member("__pycache__/pyoco.cpython-311.pyc"), "another package"),
    Hostile("the engine in data", _member("{p}-1.data/data/pyoco/core.py"), "overwrite"),
    Hostile("a start file", _member("x.pth"), "every start"),
    Hostile("a start file in another case", _member("x.PTH"), "every start"),
    Hostile("a start file in purelib", _member("{p}-1.data/purelib/x.pth"), "every start"),
    Hostile("a start file in a folder", _member("{p}/x.pth"), None),
    Hostile("sitecustomize", _member("sitecustomize.py"), "every start"),
    Hostile("usercustomize in data", _member("{p}-1.data/data/usercustomize/__init__.py"), "every start"),
    Hostile("the standard library", _member("json/__init__.py", "1 / 0"), None),
]  # fmt: skip
INFO = [
    Hostile("no METADATA", _without("METADATA"), "it has no"),
    Hostile("no WHEEL", _without("WHEEL"), "it has no"),
    Hostile("no RECORD", _without("RECORD"), "it has no"),
    Hostile("two of metadata", _member("other-2.dist-info/METADATA"), "2 folders"),
    Hostile("two in other cases", _member("other-2.Dist-Info/METADATA"), "2 folders"),
    Hostile("an egg", _member("other.egg-info/PKG-INFO"), "another package"),
    Hostile("an egg in another case", _member("OTHER.EGG-INFO"), "another package"),
    Hostile("metadata in data", _member("{p}-1.data/purelib/other-2.dist-info/METADATA"), "another package"),
    Hostile("data of another", _member("other-1.data/purelib/x.py"), "does not agree"),
    Hostile("data in another case", _member("{p}-1.DATA/purelib/.lock"), "does not agree"),
    Hostile("data without a place", _member("{p}-1.data/else/x"), "installers do not know"),
    Hostile("another name", _info("METADATA", "Name: other\nVersion: 1\n\n"), "says other 1"),
    Hostile("another version", _info("METADATA", "Name: {p}\nVersion: 2\n\n"), "says"),
    Hostile("two names", _info("METADATA", "Name: {p}\nName: other\nVersion: 1\n\n"), "more than one Name"),
    Hostile("METADATA of 40 MB", _info("METADATA", _FIELDS + "\n" + "x\n" * (20 * MEBI)), "are accepted"),
    Hostile("a field of 50 MB", _info("METADATA", _FIELDS + "X: " + "y" * (50 * MEBI) + "\n\n"), "are accepted"),
    Hostile("100,000 needs", _info("METADATA", _FIELDS + "Requires-Dist: x\n" * 100_000 + "\n"), "lines of fields"),
    Hostile("100,000 short lines", _info("METADATA", _FIELDS + "X:\r" * 100_000 + "\n"), "lines of fields"),
    Hostile("METADATA that is no text", _info("METADATA", b"Name: a\nVersion: 1\nSummary: \xff\n\n"), "not UTF-8"),
    Hostile("a Python that is none", _info("METADATA", _FIELDS + "Requires-Python: nonsense!!\n\n"), None),
    Hostile("a long word for a Python", _info("METADATA", _FIELDS + f"Requires-Python: {'>' * 9000}\n\n"), "letters"),
    Hostile("a need that is none", _info("METADATA", _FIELDS + "Requires-Dist: @@@ !!\n\n"), None),
    Hostile("tags that are none", _info("WHEEL", "Wheel-Version: 1.0\nTag: non-sen-se\n"), "does not have the tag"),
    Hostile("tags without end", _info("WHEEL", _WHEEL + "Tag: a-b-c\n" * 9000), "are accepted"),
    Hostile("many tags in one", _info("WHEEL", _WHEEL + f"Tag: {'.a' * 900}-{'.b' * 900}-{'.c' * 900}\n"), None),
    Hostile("a version to come", _info("WHEEL", _WHEEL.replace("1.0", "9.0")), "Wheel-Version 9.0"),
    Hostile("RECORD that lies", _info("RECORD", "{p}/__init__.py,sha256=wrong,1\n"), "not the file"),
    Hostile("RECORD with a weak sum", _info("RECORD", "{p}/__init__.py,md5=x,1\n"), "md5"),
    Hostile("RECORD that leads out", _info("RECORD", "../../../etc/passwd,,\n"), "not there"),
    Hostile("RECORD of 900,000 lines", _info("RECORD", "{p}/__init__.py,,\n" * 900_000), "lists more than"),
    Hostile("RECORD of many files", _info("RECORD", "".join(f"{n},,\n" for n in range(200_000))), "lists more than"),
    Hostile("entry points of 900 MB", _info("entry_points.txt", b"[pyoco.tasks]\n" + bytes(64 * MEBI)), "accepted"),
    Hostile("entry points without end", _info("entry_points.txt", "[pyoco.tasks]\n" + "a=b:c\n" * 9000), "lines"),
    Hostile("entry points that are none", _info("entry_points.txt", "[pyoco.tasks]\ngarbage\n"), "cannot be read"),
    Hostile("entry points that are no text", _info("entry_points.txt", b"[pyoco.tasks]\n\xff=x:y\n"), "not UTF-8"),
    Hostile("a command that leads out", _info("entry_points.txt", "[console_scripts]\n../x = a:b\n"), "file's name"),
    Hostile("a command in a folder", _info("entry_points.txt", "[console_scripts]\nx/y = a:b\n"), "file's name"),
    Hostile("a command without a name", _info("entry_points.txt", "[console_scripts]\n= a:b\n"), "without"),
    Hostile("a command of Python's name", _info("entry_points.txt", "[console_scripts]\npython3 = a:b\n"), None),
    Hostile("a licence of 40 MB", _info("licenses/LICENSE", bytes(40 * MEBI)), "are accepted"),
    Hostile("top_level.txt of 8 MB", _info("top_level.txt", bytes(8 * MEBI)), "are accepted"),
    Hostile("TOP_LEVEL.TXT of 8 MB", _info("TOP_LEVEL.TXT", bytes(8 * MEBI)), "are accepted"),
    Hostile("where it came from", _info("direct_url.json", '{"url": "file:///etc", "dir_info": {}}'), None),
]
KINDS = [
    Hostile("a link", _attributes(stat.S_IFLNK | 0o777), "symbolic link"),
    Hostile("a pipe", _attributes(stat.S_IFIFO | 0o666), "special file"),
    Hostile("a disk", _attributes(stat.S_IFBLK | 0o666), "special file"),
    Hostile("a terminal", _attributes(stat.S_IFCHR | 0o666), "special file"),
    Hostile("a socket", _attributes(stat.S_IFSOCK | 0o666), "special file"),
    Hostile("rights of its owner", _attributes(stat.S_IFREG | 0o6755), None),
    Hostile("no rights", _attributes(stat.S_IFREG), None),
    Hostile("lzma", _info_member(lambda info: setattr(info, "compress_type", zipfile.ZIP_LZMA), "x"), "installers"),
    Hostile("bzip2", _info_member(lambda info: setattr(info, "compress_type", zipfile.ZIP_BZIP2), "x"), "installers"),
    Hostile("twice", _twice, "there twice"),
    Hostile("a file and a folder", _member("{p}/__init__.py/x"), "both"),
    Hostile("bin is a file", lambda package: zipped({
        **members_of(package), "bin": "x", f"{package}-1.data/scripts/run": "#!python"}), "file and a folder"),
    Hostile("bin is a file, and a command", lambda package: zipped({
        **members_of(package), "bin": "x", f"{package}-1.dist-info/entry_points.txt": "[console_scripts]\nx = a:b\n",
        }), "file and a folder"),
    Hostile("the same place twice", _member("{p}-1.data/purelib/{p}/__init__.py"), "same place"),
    Hostile("a folder with content", _member("{p}/folder/", "content"), "folder with content"),
    Hostile("a wheel in the wheel", lambda package: zipped({
        **members_of(package), f"{package}/inner.whl": _good("inner")}), None),
]  # fmt: skip
ARCHIVES = [
    Hostile("nothing", lambda _: b"", "no zip archive"),
    Hostile("no zip", lambda _: b"text" * 1000, "no zip archive"),
    Hostile("half a zip", lambda package: _good(package)[:-200], "zip archive"),
    Hostile("encrypted", _set(8, "<H", 1), "encrypted"),
    Hostile("an unknown compression", _set(10, "<H", 99), "installers do not know"),
    Hostile("too few bytes declared", _patched(_both_sizes), "'"),
    Hostile("fewer bytes in the table", _set(24, "<I", 50), "data"),
    Hostile("4 GB declared", _set(24, "<I", 0xFFFFFFFE), "two sizes"),
    Hostile("64 bits without them", _set(24, "<I", 0xFFFFFFFF), "two sizes"),
    Hostile("a wrong sum", _set(16, "<I", 1), "zip archive"),
    Hostile("shared bytes", _patched(_overlap), "overlap"),
    Hostile("another name inside", _patched(_renamed_inside), "zip archive"),
    Hostile("beyond the end", _set(42, "<I", 0x7FFFFFFF), "zip archive"),
    Hostile("something before", lambda package: b"#!/bin/sh\n" + _good(package), "no zip archive"),
    Hostile("a wheel before", lambda package: _good(package) + _good(package), "before its first member"),
    Hostile("something after", lambda package: _good(package) + b"#" * 100, "after the end"),
    Hostile("a remark", _commented(b"built on a Monday"), None),
    Hostile("a remark that is an end", _commented(b"PK\x05\x06" + bytes(18)), "0 folders"),
    Hostile("50,001 members", _many(50_001, 0), "are accepted"),
    Hostile("too many folders", _deep_and_wide, "folders; "),
    Hostile("a bomb", _member("{p}/zeros", bytes(64 * MEBI)), "zip bomb"),
    Hostile("a bomb of many", _many(2000, 64 << 10), "zip bomb"),
    Hostile("an interpreter that is none", _good, "does not have the tag", tag="xy9-none-any"),
]
HOSTILE = [*PATHS, *OURS, *INFO, *KINDS, *ARCHIVES]
