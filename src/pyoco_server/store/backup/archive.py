"""The file of a backup: a tar archive of the streams' snapshots, and behind them a manifest with their digests.

::

    <stream>/snapshot.00001 …   as NATS gave it, cut into pieces
    <stream>/changes.00001 …    what was written while it was being taken, a message a line
    manifest.json               what is in it: a digest and a size of each
    manifest.sha256             the manifest's own digest

It is written without going back, so that it can go through a pipe, and in bounded memory.
"""

import contextlib
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from pydantic import BaseModel, Field
from typing_extensions import Self

from pyoco_server.errors import DamagedBackup, InvalidInput

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
_PIECE = 4 * 1024 * 1024
_READ = 128 * 1024
_LARGEST_MANIFEST = 16 * 1024 * 1024
_HINT = "Name a file that was written by: pyoco-server backup FILE"


class Content(BaseModel):
    """One sequence of bytes in the archive."""

    name: str
    pieces: int
    size: int
    sha256: str

    def members(self) -> list[str]:
        """Name its pieces."""
        return [_piece(self.name, number) for number in range(1, self.pieces + 1)]


class StoredStream(BaseModel):
    """One stream in the archive."""

    name: str
    config: dict[str, Any]
    state: dict[str, Any]
    snapshot: Content
    changes: Content | None = None

    @property
    def contents(self) -> list[Content]:
        """Give all that the archive holds of it."""
        return [self.snapshot, *([self.changes] if self.changes else [])]


class Manifest(BaseModel):
    """What a backup holds."""

    format: int = FORMAT
    pyoco_server: str
    nats_server: str
    created_at: float
    """Unix seconds; everything that was answered before is in the backup."""
    streams: list[StoredStream] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)
    """Streams that should be there and were not."""


class ArchiveWriter:
    """Writes the archive.

    Args:
        out: Where to; need not be seekable.
    """

    def __init__(self, out: BinaryIO | IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=out, mode="w|")  # noqa: SIM115 - closed by finish

    def content(self, name: str) -> "ContentWriter":
        """Begin a content; the one before must have ended."""
        return ContentWriter(self._add, name)

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, and the end."""
        raw = json.dumps(manifest.model_dump(), indent=1).encode()
        self._add(MANIFEST, raw)
        self._add(MANIFEST_DIGEST, hashlib.sha256(raw).hexdigest().encode())
        self._tar.close()

    def _add(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
        self._tar.addfile(info, io.BytesIO(data))


class ContentWriter:
    """Writes one content."""

    def __init__(self, add: Any, name: str) -> None:
        self._add = add
        self._name = name
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._pieces = 0
        self._size = 0

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self._buffer += data
        if len(self._buffer) >= _PIECE:
            self._flush()

    def end(self) -> Content:
        """Write the rest, and tell what it was."""
        if self._buffer:
            self._flush()
        return Content(name=self._name, pieces=self._pieces, size=self._size, sha256=self._digest.hexdigest())

    def _flush(self) -> None:
        data = bytes(self._buffer)
        self._pieces += 1
        self._size += len(data)
        self._digest.update(data)
        self._add(_piece(self._name, self._pieces), data)
        self._buffer.clear()


class Archive:
    """Reads the archive.

    Args:
        file: Must be seekable.
    """

    def __init__(self, file: BinaryIO | IO[bytes]) -> None:
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - closed with us
        except tarfile.TarError as error:
            raise InvalidInput(f"this is no backup: {error}", hint=_HINT) from None
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            for member in self._tar:
                self._members[member.name] = member
        except tarfile.TarError as error:
            raise DamagedBackup(f"the file is cut off, or damaged, after {self._last()}: {error}") from None
        self.manifest = self._read_manifest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def verify(self) -> None:
        """Compare every content with its size and digest.

        Raises:
            DamagedBackup: one is not what was written.
        """
        expected = {MANIFEST, MANIFEST_DIGEST}
        for content in (content for stream in self.manifest.streams for content in stream.contents):
            expected.update(content.members())
            digest, size = hashlib.sha256(), 0
            for data in self.read(content):
                digest.update(data)
                size += len(data)
            if size != content.size:
                raise DamagedBackup(f"{content.name} is damaged: it has {size} bytes, and had {content.size}")
            if digest.hexdigest() != content.sha256:
                raise DamagedBackup(f"{content.name} is damaged: its sha256 is not that of the manifest")
        if unknown := sorted(set(self._members) - expected):
            raise DamagedBackup(f"{unknown[0]} does not belong there")

    def read(self, content: Content) -> Iterator[bytes]:
        """Give a content's bytes, a piece at a time.

        Raises:
            DamagedBackup: a part is missing.
        """
        for name in content.members():
            yield from self._read(name)

    def lines(self, content: Content) -> Iterator[bytes]:
        """Give a content's lines.

        Raises:
            DamagedBackup: a part is missing.
        """
        rest = b""
        for data in self.read(content):
            *lines, rest = (rest + data).split(b"\n")
            yield from lines

    def _read_manifest(self) -> Manifest:
        for name in (MANIFEST, MANIFEST_DIGEST):
            if name not in self._members:
                raise DamagedBackup(f"{name} is missing: the file is cut off, or damaged, after {self._last()}")
        if self._members[MANIFEST].size > _LARGEST_MANIFEST:
            raise DamagedBackup(f"{MANIFEST} is damaged: it cannot be so large")
        raw = b"".join(self._read(MANIFEST))
        if hashlib.sha256(raw).hexdigest().encode() != b"".join(self._read(MANIFEST_DIGEST)):
            raise DamagedBackup(f"{MANIFEST} is damaged: its sha256 is not that of {MANIFEST_DIGEST}")
        try:
            version = json.loads(raw)["format"]
            if version <= FORMAT:
                return Manifest.model_validate_json(raw)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"this is no backup: {MANIFEST} cannot be read: {error}", hint=_HINT) from None
        raise InvalidInput(
            f"the backup has format {version}; this version of pyoco-server reads up to {FORMAT}",
            hint="Restore it with the version that wrote it, or a newer one.",
        )

    def _last(self) -> str:
        return next(reversed(self._members), "its beginning")

    def _read(self, name: str) -> Iterator[bytes]:
        member = self._members.get(name)
        source = self._tar.extractfile(member) if member else None
        if source is None:
            raise DamagedBackup(f"{name} is missing")
        try:
            while data := source.read(_READ):
                yield data
        except tarfile.TarError as error:
            raise DamagedBackup(f"{name} is damaged: {error}") from None


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a backup for as long as the block lasts.

    Raises:
        InvalidInput: there is no such file, or it is none.
        DamagedBackup: it is not what was written.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    with file, Archive(file) as archive:
        yield archive


def _piece(name: str, number: int) -> str:
    return f"{name}.{number:05}"
