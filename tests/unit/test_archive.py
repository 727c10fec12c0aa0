"""The file of a backup: what goes in comes out, and what was damaged is noticed and named."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from pyoco_server.errors import DamagedBackup, InvalidInput
from pyoco_server.store.backup import archive as module
from pyoco_server.store.backup.archive import Archive, ArchiveWriter, Content, Manifest, StoredStream, open_archive

BYTES = {"A/snapshot": b"snapshot of a" * 300, "A/changes": b'{"seq":1}\n{"seq":2}\n', "B/snapshot": b""}


def write(out: io.BytesIO, **fields: object) -> Manifest:
    writer = ArchiveWriter(out)
    contents: dict[str, Content] = {}
    for name, data in BYTES.items():
        content = writer.content(name)
        for at in range(0, len(data), 100):
            content.write(data[at : at + 100])
        contents[name] = content.end()
    streams = [
        StoredStream(name="A", config={"name": "A"}, state={}, snapshot=contents["A/snapshot"],
                     changes=contents["A/changes"]),
        StoredStream(name="B", config={"name": "B"}, state={}, snapshot=contents["B/snapshot"]),
    ]  # fmt: skip
    manifest = Manifest(
        **{"pyoco_server": "1", "nats_server": "2", "created_at": 1.0, "streams": streams, **fields}  # type: ignore[arg-type]
    )
    writer.finish(manifest)
    return manifest


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", 1000)


@pytest.fixture
def raw() -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def read(raw: bytes) -> tuple[Manifest, dict[str, bytes]]:
    with Archive(io.BytesIO(raw)) as archive:
        archive.verify()
        contents = [content for stream in archive.manifest.streams for content in stream.contents]
        return archive.manifest, {content.name: b"".join(archive.read(content)) for content in contents}


def members(raw: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_what_goes_in_comes_out() -> None:
    out = io.BytesIO()
    written = write(out)
    assert read(out.getvalue()) == (written, BYTES)
    assert [content.pieces for stream in written.streams for content in stream.contents] == [4, 1, 0]
    with Archive(io.BytesIO(out.getvalue())) as archive:
        changes = archive.manifest.streams[0].changes
        assert changes is not None
        assert list(archive.lines(changes)) == [b'{"seq":1}', b'{"seq":2}']
    assert {member.mode for member in members(out.getvalue()).values()} == {0o600}


def test_a_line_goes_over_pieces() -> None:
    out = io.BytesIO()
    writer = ArchiveWriter(out)
    content = writer.content("A/changes")
    lines = [b"%d" % number * 700 for number in range(5)]
    for line in lines:
        content.write(line + b"\n")
    changes = content.end()
    writer.finish(Manifest(pyoco_server="1", nats_server="2", created_at=1.0))
    with Archive(io.BytesIO(out.getvalue())) as archive:
        assert list(archive.lines(changes)) == lines


def test_any_flipped_byte_is_noticed_or_harmless(raw: bytes) -> None:
    whole = read(raw)
    inside = [range(member.offset_data, member.offset_data + member.size) for member in members(raw).values()]
    for at in range(0, len(raw), 7):
        damaged = bytearray(raw)
        damaged[at] ^= 0xFF
        try:
            after = read(bytes(damaged))
        except (DamagedBackup, InvalidInput):
            continue
        # In the padding behind a member, or in a field that nobody reads.
        assert after == whole and not any(at in place for place in inside), at


def test_any_cut_is_noticed(raw: bytes) -> None:
    end = members(raw)["manifest.sha256"].offset_data + 64
    for length in [*range(0, end, 61), end - 1]:
        with pytest.raises((DamagedBackup, InvalidInput)):
            read(raw[:length])
    assert read(raw[:end] + bytes(512 - 64)) == read(raw)


@pytest.mark.parametrize("name", ["A/snapshot.00003", "A/changes.00001", "manifest.json"])
def test_what_is_damaged_is_named(raw: bytes, name: str) -> None:
    damaged = bytearray(raw)
    damaged[members(raw)[name].offset_data + 5] ^= 0x01
    with pytest.raises(DamagedBackup, match=name.partition(".0")[0] + " is damaged"):
        read(bytes(damaged))


@pytest.mark.parametrize("name", ["A/snapshot.00002", "manifest.json", "manifest.sha256"])
def test_what_is_missing_is_named(raw: bytes, name: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(raw)) as before, tarfile.open(fileobj=out, mode="w") as after:
        for member in before.getmembers():
            source = before.extractfile(member)
            member.name = "other" if member.name == name else member.name
            after.addfile(member, source)
    with pytest.raises(DamagedBackup, match=f"{name} is missing"):
        read(out.getvalue())


def test_what_does_not_belong_there_is_named(raw: bytes) -> None:
    out = io.BytesIO(raw)
    with tarfile.open(fileobj=out, mode="a") as tar:
        tar.addfile(tarfile.TarInfo("../../etc/passwd"))
    with pytest.raises(DamagedBackup, match="passwd does not belong"):
        read(out.getvalue())


@pytest.mark.parametrize("raw", [b"", b"no archive" * 100, bytes(10240)], ids=["empty", "text", "zeros"])
def test_what_is_no_backup_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(raw)
    with pytest.raises((InvalidInput, DamagedBackup)), open_archive(tmp_path / "b.tar") as archive:
        archive.verify()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"), open_archive(tmp_path / "b.tar"):
        pass


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"format": 2, "new": "world"}, "has format 2; .* reads up to 1"),
        ({"format": 1}, "cannot be read: .*pyoco_server"),
        ({"format": "x"}, "cannot be read"),
        ([], "cannot be read"),
    ],
)
def test_a_manifest_that_is_not_ours(manifest: object, said: str) -> None:
    out = io.BytesIO()
    text = json.dumps(manifest).encode()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("manifest.json", text), ("manifest.sha256", hashlib.sha256(text).hexdigest().encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(InvalidInput, match="(?s)" + said):
        read(out.getvalue())
