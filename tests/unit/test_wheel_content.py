"""What a wheel must be before it is stored."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.errors import InvalidInput
from pyoco_server.model.wheels.file_name import parse_wheel_name
from pyoco_server.wheelfile import archive as wheel_archive
from pyoco_server.wheelfile.content import check_wheel
from tests.wheels import make_wheel, wheel_members, wheel_name, write_wheel

LIMIT = 64 << 20
NAME = "a-1-py3-none-any.whl"
INFO = "a-1.dist-info"


def check(path: Path, name: str = NAME) -> str | None:
    with path.open("rb") as file:
        return check_wheel(file, parse_wheel_name(name), LIMIT).requires_python


def refused(path: Path, name: str = NAME) -> str:
    with pytest.raises(InvalidInput) as caught:
        check(path, name)
    return caught.value.message


def members(**added: Any) -> dict[str, Any]:
    return wheel_members("a", "1", **added)


def archive(path: Path, write: Callable[[zipfile.ZipFile], None]) -> Path:
    """Write a good wheel and something beside it that ``writestr`` of a name would not do."""
    write_wheel(path, members())
    with zipfile.ZipFile(path, "a") as opened:
        write(opened)
    return path


@pytest.mark.parametrize(
    ("package", "version", "options"),
    [
        ("a", "1", {}),
        ("Task-CPU", "0.1.0", {"entry_points": {"x": "task_cpu:register"}}),
        ("a", "1", {"modules": {"a/model.pth": b"weights", "b.py": "", "a/data/pyoco/x.py": "", "a.b/c": ""}}),
        ("a", "1", {"modules": {"a-1.data/scripts/run": "#!python", "a-1.data/purelib/a.py": ""}}),
        ("a", "1+local", {"modules": {"a.py": ""}}),
        ("a", "1", {"modules": {"ä/leer zeichen.txt": "", "a/empty.py": ""}}),
        ("a", "1", {"tag": "cp311-cp311-manylinux_2_17_x86_64"}),
    ],
)
def test_good_wheels(tmp_path: Path, package: str, version: str, options: dict[str, Any]) -> None:
    path = make_wheel(tmp_path, package, version, metadata=["Requires-Python: >=3.10"], **options)
    assert check(path, path.name) == ">=3.10"


def test_tags_may_be_written_together_or_apart(tmp_path: Path) -> None:
    wheel = "Wheel-Version: 1.0\nTag: py2-none-any\nTag: py3-none-any\n"
    path = write_wheel(tmp_path / "x", {**members(), f"{INFO}/WHEEL": wheel})
    check(path, "a-1-py2.py3-none-any.whl")
    check(path, "a-1-py3-none-any.whl")
    assert "does not have the tag" in refused(path, "a-1-py312-none-any.whl")


@pytest.mark.parametrize(
    "path",
    ["a/学習　データ.csv", "a/no\xa0break.txt", "a/\U0001f468\ufe0f.png", "a/é.txt",
     "a/e\u0301.txt", "a/日本/語.py",
     "a/" + "学" * 85, "a/100% sure?.txt", "a/\uff0e\uff0e\uff0fx", "データ.csv"],
)  # fmt: skip
def test_names_are_text(tmp_path: Path, path: str) -> None:
    check(write_wheel(tmp_path / "x", {**members(), path: "x"}))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/etc/passwd", "absolute"), ("C:/x", "absolute"), ("c:x", "absolute"), ("../x", "leads out"),
        ("a/../../x", "leads out"), ("a/..", "leads out"), ("a/./x", "empty step"), ("a//x", "empty step"),
        ("a\\..\\x", "character"), ("a/\x01", "character"), ("a/\x85", "character"), ("a/\u2028", "character"),
        ("a/\u202etxt.py", "character"),
        ("a/\U0001f468\u200d\U0001f469.png", "U+200D, ZERO WIDTH JOINER"), ("a/\xad", "SOFT HYPHEN"),
        ("a/\ue000", "character"), ("a/" + "学" * 86, "longer than 255"), ("a/" + "x" * 600, "longer than 512"),
        ("x.pth", "every start"), ("a-1.data/purelib/x.pth", "every start"), ("a-1.data/data/x.pth", "every start"),
        ("sitecustomize.py", "every start"), ("usercustomize/__init__.py", "every start"),
        ("pyoco_server/errors.py", "overwrite pyoco_server"), ("pyoco/__init__.py", "overwrite pyoco"),
        ("pyoco.py", "overwrite pyoco"), ("pyoco.cpython-311-x86_64-linux-gnu.so", "overwrite pyoco"),
        ("a-1.data/platlib/pyoco_server/x.py", "overwrite"), ("a-1.data/data/pyoco/x.py", "overwrite"),
        ("b-2.dist-info/METADATA", "2 folders"), ("b.egg-info/PKG-INFO", "another package"),
        ("a-1.data/purelib/b-2.dist-info/METADATA", "another package"), ("b-1.data/purelib/x.py", "does not agree"),
        ("a-1.data/else/x.py", "place"), ("a-1.data/purelib", "does not agree"), ("x.data", "does not agree"),
        ("a-1.data/purelib/a/__init__.py", "same place"),
    ],
)  # fmt: skip
def test_members_that_would_land_elsewhere(tmp_path: Path, path: str, said: str) -> None:
    message = refused(write_wheel(tmp_path / "x", {**members(), path: "x"}))
    assert said in message
    assert path.split("/", maxsplit=1)[0][:60] in message or "\\" in path or "2 folders" in said


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_kinds_of_members(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "'a/link' is a symbolic link" in refused(archive(tmp_path / "1", lambda z: z.writestr(link, "/etc/passwd")))
    fifo = zipfile.ZipInfo("a/fifo")
    fifo.external_attr = stat.S_IFIFO << 16
    assert "'a/fifo' is a special file" in refused(archive(tmp_path / "2", lambda z: z.writestr(fifo, "")))
    assert "'a/__init__.py' is there twice" in refused(
        archive(tmp_path / "3", lambda z: z.writestr("a/__init__.py", "VERSION = 'other'"))
    )
    assert "'a/__init__.py' is both" in refused(archive(tmp_path / "4", lambda z: z.writestr("a/__init__.py/x", "")))
    assert "installers do not know" in refused(
        archive(tmp_path / "5", lambda z: z.writestr("a/x", "x" * 100, zipfile.ZIP_LZMA))
    )
    check(archive(tmp_path / "6", lambda z: z.mkdir("a/folder") if hasattr(z, "mkdir") else None))


def test_a_nul_in_a_name(tmp_path: Path) -> None:
    """zipfile stops reading a name there, another program may not."""
    path = write_wheel(tmp_path / "x", {**members(), "a/xyz": ""})
    path.write_bytes(path.read_bytes().replace(b"a/xyz", b"a/x\0z"))
    assert "character in its name" in refused(path)


@pytest.mark.parametrize("missing", ["METADATA", "WHEEL", "RECORD"])
def test_the_metadata_must_be_there(tmp_path: Path, missing: str) -> None:
    there = members()
    there.pop(f"{INFO}/{missing}", None)
    assert f"it has no {INFO}/{missing}" in refused(write_wheel(tmp_path / "x", there, record=missing != "RECORD"))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("METADATA", "Name: b\nVersion: 1\n\n", "says b 1, its file name a 1"),
        ("METADATA", "Name: a\nVersion: 2\n\n", "says a 2"),
        ("METADATA", "Name: a\nVersion: one\n\n", "says a one"),
        ("METADATA", "Name: a\n\nVersion: 1\n", "no Version"),
        ("METADATA", b"\xff\xfe\x00", "not UTF-8"),
        ("WHEEL", "Wheel-Version: 1.0\n", "does not have the tag py3-none-any"),
        ("WHEEL", "Wheel-Version: 1.0\nTag: nonsense\n", "does not have the tag"),
        ("WHEEL", "Wheel-Version: 2.0\nTag: py3-none-any\n", "Wheel-Version 2.0"),
        ("WHEEL", "Tag: py3-none-any\n", "Wheel-Version None"),
        ("RECORD", "a/__init__.py,sha256=wrong,1\n", "'a/__init__.py' is not the file"),
        ("RECORD", "a/__init__.py,md5=wrong,1\n", "md5"),
        ("RECORD", "a/nothing.py,,\n", "'a/nothing.py', which is not there"),
        ("RECORD", "../../bin/x,,\n", "which is not there"),
        ("RECORD", b"\xff", "RECORD cannot be read"),
        ("RECORD", "x" * 200_000, "RECORD cannot be read"),
    ],
)
def test_the_metadata_must_agree(tmp_path: Path, file: str, text: str | bytes, said: str) -> None:
    assert said in refused(write_wheel(tmp_path / "x", {**members(), f"{INFO}/{file}": text}))


def test_a_record_without_checksums_is_enough(tmp_path: Path) -> None:
    check(write_wheel(tmp_path / "x", {**members(), f"{INFO}/RECORD": "a/__init__.py,,\n"}))
    check(write_wheel(tmp_path / "y", {**members(), f"{INFO}/RECORD": ""}))


def test_the_folder_must_agree(tmp_path: Path) -> None:
    other = {path.replace(INFO, "a-2.dist-info"): content for path, content in members().items()}
    assert "'a-2.dist-info' does not agree" in refused(write_wheel(tmp_path / "x", other))
    assert "0 folders" in refused(write_wheel(tmp_path / "y", {"a.py": ""}))


@pytest.mark.parametrize("name", ["pyoco-1-py3-none-any.whl", "Pyoco_Server-9-py3-none-any.whl"])
def test_the_servers_own_packages(tmp_path: Path, name: str) -> None:
    package, version = name.split("-")[:2]
    assert "itself" in refused(write_wheel(tmp_path / "x", wheel_members(package, version)), name)


@pytest.mark.parametrize("content", [b"", b"PK", b"text" * 1000, b"PK\x03\x04" + b"x" * 100, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert "zip archive" in refused(tmp_path / "x")


def test_every_cut_and_every_changed_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    """Never anything but InvalidInput, and what gets through is unpacked to the same files."""
    good = write_wheel(tmp_path / "good", members()).read_bytes()
    with zipfile.ZipFile(io.BytesIO(good)) as opened:
        files = {info.filename: opened.read(info) for info in opened.infolist()}
    name = parse_wheel_name(NAME)
    for at in range(len(good)):
        for bad in (good[:at], good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :]):
            try:
                check_wheel(io.BytesIO(bad), name, LIMIT)
            except InvalidInput:
                continue
            with zipfile.ZipFile(io.BytesIO(bad)) as opened:
                assert {info.filename: opened.read(info) for info in opened.infolist()} == files


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = write_wheel(tmp_path / "flat", {**members(), "a/zeros": bytes(64 << 20)})
    assert flat.stat().st_size < 1 << 20
    assert "a zip bomb" in refused(flat)
    check(write_wheel(tmp_path / "small", {**members(), "a/zeros": bytes(8 << 20)}))
    many = write_wheel(tmp_path / "many", {**members(), **{f"a/{n}": "" for n in range(200)}})
    monkeypatch.setattr(wheel_archive, "MOST_MEMBERS", 100)
    assert "204 members; 100 are accepted" in refused(many)
    monkeypatch.setattr(wheel_archive, "_DIRECTORY_BYTES", 5000)
    assert "table of contents has more than 5000 bytes" in refused(many)
    with flat.open("rb") as file, pytest.raises(InvalidInput, match="it unpacks to"):
        check_wheel(file, parse_wheel_name(NAME), 1 << 20)


def test_a_member_that_is_longer_than_it_declares(tmp_path: Path) -> None:
    """An installer that does not stop there would unpack more than was checked."""
    path = write_wheel(tmp_path / "x", {**members(), "a/data": b"0" * 5000, f"{INFO}/RECORD": ""})
    content = path.read_bytes()
    declared, real = struct.pack("<I", 50), struct.pack("<I", 5000)
    assert content.count(real) == 2
    path.write_bytes(content.replace(real, declared))
    message = refused(path)
    assert "'a/data'" in message and ("50 bytes that it declares" in message or "CRC" in message)
    import zlib

    crc = struct.pack("<I", zlib.crc32(b"0" * 5000))
    path.write_bytes(content.replace(real, declared).replace(crc, struct.pack("<I", zlib.crc32(b"0" * 50))))
    with zipfile.ZipFile(path) as opened:
        assert len(opened.read("a/data")) == 50  # the standard library does not see it
    assert "'a/data'" in refused(path)


def test_members_that_share_their_bytes(tmp_path: Path) -> None:
    path = write_wheel(tmp_path / "x", {**members(), "a/one": b"1" * 50, "a/two": b"2" * 50, f"{INFO}/RECORD": ""})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as opened:
        one = opened.getinfo("a/one").header_offset
    entry = content.rindex(b"a/two") - 46
    content[entry + 42 : entry + 46] = struct.pack("<I", one)
    path.write_bytes(content)
    assert "overlaps" in refused(path)


def test_bytes_before_the_first_member(tmp_path: Path) -> None:
    path = write_wheel(tmp_path / "x", members())
    path.write_bytes(path.read_bytes() * 2)
    assert "bytes before its first member" in refused(path)


def test_an_encrypted_member(tmp_path: Path) -> None:
    path = write_wheel(tmp_path / "x", members())
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"a/__init__.py") - 46
    assert content[entry : entry + 4] == b"PK\x01\x02"
    content[entry + 8] |= 1
    path.write_bytes(content)
    assert "'a/__init__.py' is encrypted" in refused(path)


def test_the_helper_names_files_as_a_build_does() -> None:
    assert wheel_name("task-cpu", "0.1.0") == "task_cpu-0.1.0-py3-none-any.whl"
