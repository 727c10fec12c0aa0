"""An object store: large values in chunks, written and read as a stream, laid out as every NATS client does it.

The client's own object store is not used: it makes a consumer for each read and each list, and knows no
compare-and-set.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

import structlog
from nats.js.errors import NotFoundError

from pyoco_server.errors import RevisionConflict, StoreFull, StoreUnavailable
from pyoco_server.store.nats.connection import REQUEST_TIMEOUT, Connection
from pyoco_server.store.nats.direct import DirectReader, StreamMessage, remove_message
from pyoco_server.store.nats.messages import publish, read
from pyoco_server.store.topology import object_chunks, object_metas, object_stream

log = structlog.get_logger(__name__)

CHUNK = 128 * 1024
_BLOCK = 8 * CHUNK
"""Bytes that are on their way at a time."""
_ENVELOPE = 1024
_MOST_OBJECTS = 100_000
_LONGEST_NAME = 1024
"""In bytes; NATS closes the connection for a subject that is too long."""
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_EXPECTED_OF = "Nats-Expected-Last-Subject-Sequence-Subject"
_ROLLUP = {"Nats-Rollup": "sub"}


@dataclass(frozen=True)
class Meta:
    """What is known of an object: its name, size, digest, headers, and which chunks it is made of."""

    body: dict[str, Any]
    seq: int
    stored_at: datetime

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.body.get("name") or "")

    @property
    def nuid(self) -> str:
        """Names its chunks."""
        return str(self.body.get("nuid") or "")

    @property
    def is_there(self) -> bool:
        """Tell whether it stands for bytes: it is neither the mark of a removal nor a link to another object."""
        return bool(self.name and self.nuid) and not self.body.get("deleted") and not self._link

    @property
    def _link(self) -> Any:
        return (self.body.get("options") or {}).get("link")


@dataclass(frozen=True)
class Metas:
    """All that is known of all objects, at one moment."""

    items: list[Meta]
    last: int
    """The sequence of the latest change among them; 0 for none."""


@dataclass(frozen=True)
class Chunks:
    """Bytes that are stored, but belong to no object yet."""

    nuid: str
    size: int
    count: int
    sha256: bytes


class ObjectStore:
    """One object store.

    Args:
        connection: The connection.
        bucket: The store's name.
    """

    def __init__(self, connection: Connection, bucket: str) -> None:
        self._connection = connection
        self.bucket = bucket
        self.stream = object_stream(bucket)
        self.metas_subject = f"{object_metas(bucket)}.>"
        self._reader = DirectReader(connection, self.stream)

    async def metas(self) -> Metas:
        """Read what is known of every object; nothing where there is none, not even the store.

        Raises:
            StoreUnavailable: NATS is away.
        """
        try:
            messages = await self._reader.read(start=1, subject=self.metas_subject, limit=_MOST_OBJECTS)
        except StoreUnavailable:
            if await self._is_made():
                raise
            messages = []
        latest = {message.subject: message for message in messages}  # a client may have left an older one standing
        items = [meta for message in latest.values() if (meta := _meta(message))]
        return Metas(items, max((message.seq for message in messages), default=0))

    async def meta(self, name: str) -> Meta | None:
        """Read what is known of one object; ``None`` if there is none."""
        if not 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME:
            return None
        what = f"reading {name} from {self.bucket}"
        try:
            found = await read(self._connection, self.stream, subject=self._meta_subject(name), what=what)
        except StoreUnavailable:
            if await self._is_made():
                raise
            return None
        if found is None:
            return None
        body = _object(found.data or b"")
        if body is None or found.seq is None or found.time is None:
            return None
        meta = Meta(body, found.seq, found.time)
        return meta if meta.is_there else None

    async def put_meta(self, name: str, body: dict[str, Any], *, last: int | None = None, seq: int = 0) -> int:
        """Write what is known of an object.

        Args:
            name: The object.
            body: What is known.
            last: If given: only if this is still the latest change of all objects (``Metas.last``).
            seq: Otherwise: only if this is still the sequence of what is known of this one.

        Returns:
            Its sequence.

        Raises:
            RevisionConflict: somebody else wrote first.
            StoreUnavailable: no answer; it may or may not have been written.
        """
        headers = {**_ROLLUP, _EXPECTED: str(seq)}
        if last is not None:
            headers.update({_EXPECTED: str(last), _EXPECTED_OF: self.metas_subject})
        what = f"writing {name} to {self.bucket}"
        payload = json.dumps(body).encode()
        return await publish(self._connection, self._meta_subject(name), payload, headers, what=what, patient=True)

    async def write(self, file: BinaryIO) -> Chunks:
        """Store the rest of a file, a piece at a time; when that fails, nothing of it stays.

        Raises:
            StoreUnavailable: NATS is away, or has no room.
        """
        nuid = self._connection.client._nuid.next().decode()  # what every client names chunks by
        subject = self._chunk_subject(nuid)
        piece = min(CHUNK, self._connection.max_payload - _ENVELOPE)
        digest = hashlib.sha256()

        def block() -> bytes:
            data = file.read(_BLOCK)
            digest.update(data)
            return data

        size = count = 0
        try:
            while data := await asyncio.to_thread(block):
                pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
                await self._publish(subject, pieces)
                size += len(data)
                count += len(pieces)
        except BaseException:  # a client that hangs up cancels us
            await asyncio.shield(self.drop(nuid))
            raise
        return Chunks(nuid, size, count, digest.digest())

    async def read(self, nuid: str) -> AsyncIterator[bytes]:
        """Give an object's bytes, a piece at a time, until there are no more.

        Raises:
            StoreUnavailable: NATS is away.
        """
        start = 1
        while messages := await self._reader.read(
            start=start, subject=self._chunk_subject(nuid), limit=_BLOCK // CHUNK
        ):
            yield b"".join(message.data for message in messages)
            if not messages[-1].pending:
                return
            start = messages[-1].seq + 1

    async def drop(self, nuid: str) -> None:
        """Remove chunks. When that fails it is only logged: ``sweep`` removes them later."""
        try:
            with self._connection.errors(f"removing bytes from {self.bucket}"):
                await self._connection.js.purge_stream(self.stream, subject=self._chunk_subject(nuid))
        except StoreUnavailable as error:
            log.warning("bytes that belong to no object stay until they are swept", nuid=nuid, reason=error.message)

    async def remove(self, meta: Meta) -> None:
        """Remove an object and its bytes.

        Raises:
            RevisionConflict: it has changed since it was read.
            StoreUnavailable: no answer; it may or may not have been removed.
        """
        # Other clients follow the store by such marks.
        mark = {**meta.body, "deleted": True, "size": 0, "chunks": 0, "digest": "", "mtime": ""}
        try:
            seq = await self.put_meta(meta.name, mark, seq=meta.seq)
        except StoreFull:
            # A full store takes no mark either, not even of what makes room. Without one it goes as well.
            if not await remove_message(self._connection, self.stream, meta.seq):
                raise RevisionConflict(f"{meta.name} has changed since it was read") from None
            await self.drop(meta.nuid)
            try:
                seq = await self.put_meta(meta.name, mark)  # there may be room now
            except StoreFull:
                log.warning("NATS is full: an object went without a mark", object=meta.name)
                return
        await self.drop(meta.nuid)
        try:
            await remove_message(self._connection, self.stream, seq)  # marks of years would slow down every list
        except StoreUnavailable as error:
            log.warning("the mark of a removed object stays", object=meta.name, reason=error.message)

    async def sweep(self, older_than: float) -> int:
        """Remove chunks that belong to no object: their writer died.

        Args:
            older_than: Seconds since the last of them was written.

        Returns:
            How many objects' worth.
        """
        prefix = f"{object_chunks(self.bucket)}."
        with self._connection.errors(f"looking at {self.bucket}"):
            info = await self._connection.js.stream_info(self.stream, subjects_filter=f"{prefix}>")
        # In this order: an upload that ends meanwhile is seen as an object.
        stored = {subject.removeprefix(prefix) for subject in info.state.subjects or {}}
        owned = {meta.nuid for meta in (await self.metas()).items if meta.is_there}
        swept = 0
        for nuid in stored - owned:
            last = await read(self._connection, self.stream, subject=prefix + nuid, what=f"looking at {self.bucket}")
            if (
                last is not None
                and last.time is not None
                and (datetime.now(last.time.tzinfo) - last.time).total_seconds() > older_than
            ):
                await self.drop(nuid)
                swept += 1
        return swept

    async def _publish(self, subject: str, pieces: list[bytes]) -> None:
        """Publish in order; wait for all acknowledgements."""
        js = self._connection.js
        acks: list[asyncio.Future[Any]] = []
        with self._connection.errors(f"writing bytes to {self.bucket}"):
            try:
                for piece in pieces:
                    acks.append(await js.publish_async(subject, piece))  # noqa: PERF401 - kept one by one
                await asyncio.wait(acks, timeout=REQUEST_TIMEOUT)
            finally:
                for ack in acks:
                    ack.cancel()  # those that are done stay as they are
            failures = [ack.exception() for ack in acks if not ack.cancelled()]
            if any(ack.cancelled() for ack in acks):
                raise StoreUnavailable(f"writing bytes to {self.bucket}: NATS did not answer")
            for failure in failures:
                if failure is not None:
                    raise failure

    async def _is_made(self) -> bool:
        js = self._connection.js
        try:
            with self._connection.errors(f"looking at {self.bucket}", missing=True):
                await js.stream_info(self.stream)
        except NotFoundError:
            return False
        return True

    def _meta_subject(self, name: str) -> str:
        return f"{object_metas(self.bucket)}.{base64.urlsafe_b64encode(name.encode('utf-8', 'replace')).decode()}"

    def _chunk_subject(self, nuid: str) -> str:
        return f"{object_chunks(self.bucket)}.{nuid}"


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):  # another program may have written anything
        return None
    return body if isinstance(body, dict) else None


def _meta(message: StreamMessage) -> Meta | None:
    body = _object(message.data)
    if body is None:
        log.warning("what is known of an object cannot be read", subject=message.subject)
        return None
    return Meta(body, message.seq, message.stored_at)
