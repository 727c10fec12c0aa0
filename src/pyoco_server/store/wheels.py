"""The registry of wheels: objects named as their files and tenants, with tags and pins in their headers."""

import asyncio
import base64
import binascii
import hashlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime, timezone
from typing import Any, BinaryIO

import pydantic_core
import structlog
from nats.aio.msg import Msg
from pydantic import TypeAdapter, ValidationError

from pyoco_server.errors import (
    InvalidInput,
    PyocoError,
    RevisionConflict,
    StoreUnavailable,
    WheelDamaged,
    WheelNotFound,
)
from pyoco_server.model.wheels.file_name import WheelName, parse_wheel_name
from pyoco_server.model.wheels.object_name import NO_WORKER, file_name_of, object_name
from pyoco_server.model.wheels.wheel import WheelEntry, check_newer, claims_since
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.objects import CHUNK, Chunks, Meta, ObjectStore

log = structlog.get_logger(__name__)

TAGS = "x-pyoco-wheel-tags"
PINNED_AT = "x-pyoco-wheel-pinned-at"
REQUIRES_PYTHON = "x-pyoco-wheel-requires-python"
TENANT = "x-pyoco-wheel-tenant"
TENANT_TAGS = "x-pyoco-wheel-tenant-tags"
"""The tags of a tenant's wheel."""
CLAIMS = "x-pyoco-wheel-claims"
"""JSON: since when the package has had each of the modules and files that are its own (unix seconds)."""

_DIGEST = "SHA-256="
_TRIES = 20
_PAUSE = 0.05
_ABANDONED_SEC = 3600.0
"""How old bytes without an object must be before they are nobody's: an upload takes minutes at most."""

_TIME = TypeAdapter(datetime)


class WheelStore:
    """The wheels that are stored, whoever stored them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._objects = ObjectStore(connection, connection.settings.wheel_object_store_bucket)
        self._told = f"$O.{self._objects.bucket}.changed"

    async def list(self) -> list[WheelEntry]:
        """Return every wheel, whosever it is, by name.

        Raises:
            StoreUnavailable: NATS is away.
        """
        return _entries((await self._objects.metas()).items)

    async def get(self, name: str, tenant_id: str | None = None) -> WheelEntry:
        """Give one wheel.

        Args:
            name: Its file name.
            tenant_id: Whose it is; ``None`` for one that all share.

        Raises:
            WheelNotFound: there is none of this name.
        """
        return (await self._find(name, tenant_id))[1]

    async def put(
        self,
        name: str,
        file: BinaryIO,
        tags: Sequence[str] = (),
        *,
        requires_python: str | None = None,
        tenant_id: str | None = None,
        claims: Sequence[str] = (),
    ) -> WheelEntry:
        """Store a wheel. Nothing stays of one that is refused.

        Args:
            name: Its file name.
            file: Its bytes, from where the file stands; read a piece at a time.
            tags: The workers that shall use it; none: all of them.
            requires_python: The interpreters that its metadata asks for.
            tenant_id: The tenant whose runs alone shall have it; ``None`` for everybody's.
            claims: The modules and files that are its own.

        Raises:
            InvalidInput: the name is no wheel's.
            WheelVersionConflict: the same or a newer version of the package is stored for the same tenant, or for all;
                of two at once, one is first.
            StoreUnavailable: NATS is away, or has no room; the message tells if it may be stored all the same.
        """
        wheel = parse_wheel_name(name)
        check_newer(await self.list(), wheel, tenant_id)  # before the bytes travel
        chunks = await self._objects.write(file)
        headers = {TAGS: ",".join(tags), REQUIRES_PYTHON: requires_python or ""}
        if tenant_id is not None:
            headers |= {TAGS: NO_WORKER, TENANT: tenant_id, TENANT_TAGS: ",".join(tags)}
        body = {
            "name": object_name(name, tenant_id),
            "bucket": self._objects.bucket,
            "nuid": chunks.nuid,
            "size": chunks.size,
            "mtime": datetime.now(timezone.utc).isoformat(),
            "chunks": chunks.count,
            "digest": _DIGEST + base64.urlsafe_b64encode(chunks.sha256).decode(),
            "deleted": False,
            "headers": {header: value for header, value in headers.items() if value},
            "options": {"max_chunk_size": CHUNK},
        }
        meta = await self._enter(wheel, tenant_id, body, chunks, claims)
        await self._tell()
        entry = _entry(meta)
        assert entry is not None  # noqa: S101 - we have just written it
        return entry

    async def read_to(self, entry: WheelEntry, file: BinaryIO) -> None:
        """Write a wheel's bytes into a file, a piece at a time; they count only if this returns.

        Raises:
            WheelDamaged: they are not what was uploaded.
            StoreUnavailable: NATS is away.
        """
        async for block in self.stream(entry):
            await asyncio.to_thread(file.write, block)

    async def stream(self, entry: WheelEntry) -> AsyncGenerator[bytes, None]:
        """Give a wheel's bytes, a piece at a time; the last piece comes only if all of them are what was uploaded.

        Raises:
            WheelDamaged: they are not.
            StoreUnavailable: NATS is away.
        """
        digest = hashlib.sha256()
        size, held = 0, b""
        async for block in self._objects.read(entry.nuid):
            size += len(block)
            if size > entry.size_bytes:
                break
            digest.update(block)
            if held:
                yield held
            held = block
        if size != entry.size_bytes or digest.hexdigest() != entry.sha256_hex:
            raise self._damaged(entry, size, digest.hexdigest())
        yield held

    async def remove(self, name: str, tenant_id: str | None = None) -> WheelEntry:
        """Remove a wheel and give what it was.

        Args:
            name: Its file name.
            tenant_id: Whose it is; ``None`` for one that all share.

        Raises:
            WheelNotFound: there is none of this name.
            StoreUnavailable: NATS is away.
        """
        for _ in range(_TRIES):
            meta, entry = await self._find(name, tenant_id)
            try:
                await self._objects.remove(meta)
            except RevisionConflict:
                continue  # pinned in between
            await self._tell()
            return entry
        raise StoreUnavailable(f"the wheel {name} changes too fast")

    async def pin(self, name: str, at: float | None = None, *, tenant_id: str | None = None) -> WheelEntry:
        """Make a wheel the one of its package for the workers of its tags, although there may be newer ones.

        Args:
            name: The wheel.
            at: Since when, in unix seconds; now when not given. Of several pins the latest counts.
            tenant_id: Whose it is; ``None`` for one that all share.

        Raises:
            WheelNotFound: there is none of this name.
            StoreUnavailable: NATS is away.
        """
        return await self._set_pin(name, tenant_id, time.time() if at is None else at)

    async def unpin(self, name: str, *, tenant_id: str | None = None) -> WheelEntry:
        """Take a pin back; one that is none is left alone.

        Args:
            name: The wheel.
            tenant_id: Whose it is; ``None`` for one that all share.

        Raises:
            WheelNotFound: there is none of this name.
            StoreUnavailable: NATS is away.
        """
        return await self._set_pin(name, tenant_id, None)

    async def changed(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call back after every change from now on, sometimes twice; survives reconnects.

        It is told by plain messages that may get lost: whoever must know looks from time to time, too.
        """

        async def receive(_: Msg) -> None:
            await call()

        with self._connection.errors("listening to the wheels"):
            client = self._connection.client
            await client.subscribe(self._told, cb=receive)
            # Other programs change wheels without a word. This may be heard a moment before it is stored.
            await client.subscribe(self._objects.metas_subject, cb=receive)

    async def revision(self) -> int:
        """Give a number that has grown if anything has changed; it also grows while bytes are being uploaded.

        Answered by the stream's leader, so whoever was told of a change before asks will see it.

        Raises:
            StoreUnavailable: NATS is away.
        """
        with self._connection.errors("looking at the wheels"):
            return int((await self._connection.js.stream_info(self._objects.stream)).state.last_seq)

    async def sweep(self) -> int:
        """Remove the bytes of uploads whose gateway died; how many uploads is the answer.

        Raises:
            StoreUnavailable: NATS is away.
        """
        return await self._objects.sweep(_ABANDONED_SEC)

    def _damaged(self, entry: WheelEntry, size: int, sha256_hex: str) -> PyocoError:
        if size < entry.size_bytes and not self._connection.cluster.has_one_copy(self._objects.stream):
            # A replica that is behind, or a wheel that has just been deleted.
            return StoreUnavailable(f"only {size} of the {entry.size_bytes} bytes of {entry.name} are there")
        found = f"sha256 {sha256_hex}, not {entry.sha256_hex}"
        if size != entry.size_bytes:
            found = f"{size} bytes{' or more' if size > entry.size_bytes else ''}, not {entry.size_bytes}"
        return WheelDamaged(f"the stored wheel {entry.name} is damaged or was tampered with: {found}")

    async def _find(self, name: str, tenant_id: str | None = None) -> tuple[Meta, WheelEntry]:
        meta = await self._objects.meta(object_name(name, tenant_id))
        entry = _entry(meta) if meta else None
        # Whoever names an object of a tenant as if it were a shared wheel has not found one.
        if meta is None or entry is None or entry.tenant_id != tenant_id:
            raise WheelNotFound(f"there is no wheel {name[:200]!r}")
        return meta, entry

    async def _enter(
        self, wheel: WheelName, tenant_id: str | None, body: dict[str, Any], chunks: Chunks, claims: Sequence[str]
    ) -> Meta:
        """Make an object of stored bytes, if the version rule holds at that very moment.

        The rule is about a package, and a package's wheels have different names. So the write is refused by the server
        if anything has changed in the whole registry since the rule was checked.
        """
        doubtful = False
        try:
            for _ in range(_TRIES):
                metas = await self._objects.metas()
                mine = next((meta for meta in metas.items if meta.nuid == chunks.nuid and meta.is_there), None)
                if mine is not None:
                    return mine  # an earlier try was written although its answer got lost
                entries = _entries(metas.items)
                check_newer(entries, wheel, tenant_id)
                if claims:
                    own = [entry for entry in entries if entry.tenant_id == tenant_id]
                    since = claims_since(own, wheel.package, claims, time.time())
                    body["headers"][CLAIMS] = json.dumps(since, ensure_ascii=False)
                try:
                    seq = await self._objects.put_meta(body["name"], body, last=metas.last)
                except RevisionConflict:
                    await asyncio.sleep(_PAUSE)  # a replica that is behind needs it
                    continue
                except StoreUnavailable:
                    if doubtful:
                        raise
                    doubtful = True
                    continue
                return Meta(body, seq, datetime.now(timezone.utc))
            raise StoreUnavailable("the registry of wheels changes too fast", hint="Try again in a moment.")
        except StoreUnavailable as error:
            if not doubtful:
                await self._objects.drop(chunks.nuid)
                raise
            # It may have been written: then it needs its bytes; if not, they are swept later.
            raise StoreUnavailable(f"{error.message}; the wheel may be stored all the same") from error
        except BaseException:
            await asyncio.shield(self._objects.drop(chunks.nuid))
            raise

    async def _set_pin(self, name: str, tenant_id: str | None, pinned_at: float | None) -> WheelEntry:
        for _ in range(_TRIES):
            meta, entry = await self._find(name, tenant_id)
            if pinned_at is None and entry.pinned_at is None:
                return entry
            headers = {key: value for key, value in _headers(meta).items() if key.lower() != PINNED_AT}
            if pinned_at is not None:
                in_lists = any(isinstance(value, list) for value in headers.values())  # as Go clients write them
                headers[PINNED_AT] = [repr(pinned_at)] if in_lists else repr(pinned_at)
            # The time is that of the bytes; a client that left it out has meant the message's own.
            body = {**meta.body, "headers": headers, "mtime": entry.mtime}
            try:
                seq = await self._objects.put_meta(meta.name, body, seq=meta.seq)
            except RevisionConflict:
                continue
            await self._tell()
            changed = _entry(Meta(body, seq, meta.stored_at))
            assert changed is not None  # noqa: S101 - it was one before
            return changed
        raise StoreUnavailable(f"the wheel {name} changes too fast")

    async def _tell(self) -> None:
        try:
            with self._connection.errors("telling of a change of wheels"):
                await self._connection.client.publish(self._told, b"")
        except StoreUnavailable as error:
            log.debug("nobody was told of a change of wheels; workers look by themselves", reason=error.message)


def _entries(metas: Sequence[Meta]) -> list[WheelEntry]:
    found = [entry for meta in metas if meta.is_there and (entry := _entry(meta))]
    return sorted(found, key=lambda entry: (entry.name, entry.tenant_id or ""))


def _entry(meta: Meta) -> WheelEntry | None:
    """Read an object as a wheel; ``None``, with a word in the log, if what is known of it makes no sense."""
    body = meta.body
    digest = str(body.get("digest") or "")
    try:
        if not digest.upper().startswith(_DIGEST):
            raise ValueError("its digest is no SHA-256")
        sha256_b64 = digest[len(_DIGEST) :]
        sha256 = base64.b64decode(sha256_b64 + "=" * (-len(sha256_b64) % 4), altchars=b"-_")
        if len(sha256) != hashlib.sha256().digest_size:  # it names a directory on workers
            raise ValueError("its digest is no SHA-256")
        modified = _modified(meta)
        pinned_at = _header(meta, PINNED_AT)
        tenant_id = _header(meta, TENANT) or None
        name = meta.name if tenant_id is None else file_name_of(meta.name, tenant_id)
        tags = _header(meta, TAGS if tenant_id is None else TENANT_TAGS)
        return WheelEntry(
            name=name,
            size_bytes=body["size"],
            digest=digest,
            sha256_b64=sha256_b64,
            sha256_hex=sha256.hex(),
            mtime=modified.isoformat(),
            modified=modified.timestamp(),
            bucket=str(body.get("bucket") or ""),
            nuid=meta.nuid,
            tags=[tag for part in tags.split(",") if (tag := part.strip())],
            **_named(name),
            pinned_at=float(pinned_at) if pinned_at else None,
            requires_python=_header(meta, REQUIRES_PYTHON) or None,
            tenant_id=tenant_id,
            claims=json.loads(_header(meta, CLAIMS) or "{}"),
        )
    except (KeyError, ValueError, TypeError, RecursionError, binascii.Error, ValidationError) as error:
        log.warning("an object in the wheels' bucket is none; it is left out", object=meta.name, reason=str(error))
        return None


def _named(name: str) -> dict[str, str]:
    try:
        wheel = parse_wheel_name(name)
    except InvalidInput:
        return {}
    return {"package": wheel.package, "version": str(wheel.version)}


def _headers(meta: Meta) -> dict[str, Any]:
    headers = meta.body.get("headers")
    return headers if isinstance(headers, dict) else {}


def _header(meta: Meta, name: str) -> str:
    """Give a header's value; clients in other languages write each as a list."""
    for key, value in _headers(meta).items():
        if key.lower() == name:
            return ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return ""


def _modified(meta: Meta) -> datetime:
    try:
        given = _TIME.validate_python(meta.body.get("mtime"))
    except (ValidationError, pydantic_core.PydanticCustomError):
        return meta.stored_at
    given = given if given.tzinfo else given.replace(tzinfo=timezone.utc)
    return given if given.year > 1970 else meta.stored_at  # Go writes the year 1
