"""The API keys: written by the admin command, read and followed by the gateways.

Beside ours there may be those of the existing system, under names of their own, and our seals of them
(``model/existing/api_key.py``).
"""

import contextlib
from dataclasses import dataclass

import structlog

from pyoco_server.errors import KeyNotFound, RevisionConflict, StoreUnavailable
from pyoco_server.model.apikey import ApiKeyRecord, is_key_id
from pyoco_server.model.existing.api_key import PREFIX, SEALS, ExistingKey, Seal
from pyoco_server.store import topology
from pyoco_server.store.nats.bucket import Bucket
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import DirectReader

log = structlog.get_logger(__name__)

_TRIES = 10
_MOST = 100_000


@dataclass(frozen=True)
class StoredKey:
    """What is stored under a key's id, and its revision."""

    record: ApiKeyRecord | None
    """``None`` if it cannot be read, or was taken out."""
    revision: int


class KeyStore:
    """The bucket of API keys; key = the key's id.

    Args:
        connection: To the account in which the bucket is.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bucket = Bucket(connection, connection.settings.auth_kv_bucket)
        self._reader = DirectReader(connection, self._bucket.stream)

    async def ensure(self) -> None:
        """Make the bucket if it is missing.

        Raises:
            StoreUnavailable: NATS is away, or refuses.
        """
        await topology.ensure_one(self._connection, topology.keys_definition(self._connection.settings))

    async def get(self, key_id: str) -> StoredKey | None:
        """Read a key's record; ``None`` if there is none."""
        if not is_key_id(key_id):
            return None
        for name in (key_id, f"{PREFIX}{key_id}"):
            entry = await self._bucket.get(name)
            if entry is not None:
                return StoredKey(read(name, entry.value), entry.revision)
        return None

    async def create(self, record: ApiKeyRecord) -> None:
        """Store a new key.

        Raises:
            RevisionConflict: a key has this id.
        """
        await self._bucket.update(record.key_id, record.to_json(), 0)

    async def revoke(self, key_id: str, now: float) -> ApiKeyRecord:
        """Make a key useless for ever; its record stays. Once more is no error, and changes nothing.

        Args:
            key_id: The key.
            now: Unix seconds.

        Raises:
            KeyNotFound: there is no such key.
        """
        for _ in range(_TRIES):
            stored = await self.get(key_id)
            if stored is None or stored.record is None:
                raise KeyNotFound("no api key has this id")
            revoked = stored.record.revoked(now)
            if revoked is stored.record:
                return revoked
            theirs = isinstance(revoked, ExistingKey)
            try:
                await self._bucket.update(f"{PREFIX if theirs else ''}{key_id}", revoked.to_json(), stored.revision)
            except RevisionConflict:
                continue
            if theirs:
                await self._forget_seal(key_id)
            return revoked
        raise StoreUnavailable(f"the api key {key_id} is written to faster than it can be changed")

    async def list(self) -> list[ApiKeyRecord]:
        """Give every key that can be read, the newest first."""
        found: dict[str, ApiKeyRecord] = {}
        for names in (f"{PREFIX}*", "*"):  # ours count where both are there
            beginning = len(self._bucket.subject(""))
            for message in await self._reader.read(start=0, subject=self._bucket.subject(names), limit=_MOST):
                if message.data and (record := read(message.subject[beginning:], message.data)) is not None:
                    found[record.key_id] = record
        return sorted(found.values(), key=lambda record: -record.created_at)

    async def seal(self, key_id: str) -> Seal | None:
        """Read the seal of a key of the existing system; ``None`` if there is none.

        Raises:
            StoreUnavailable: NATS is away.
        """
        entry = await self._bucket.get(f"{SEALS}{key_id}")
        return None if entry is None else read_seal(key_id, entry.value)

    async def store_seal(self, seal: Seal) -> None:
        """Store a seal, unless another gateway has.

        Raises:
            RightMissing: our credential may not.
            StoreUnavailable: NATS is away.
        """
        name = f"{SEALS}{seal.key_id}"
        entry = await self._bucket.get(name)
        kept = read_seal(seal.key_id, entry.value) if entry is not None else None
        if kept == seal:
            return
        writing = (
            self._bucket.create(name, seal.to_json())
            if entry is None
            else self._bucket.update(name, seal.to_json(), entry.revision)
        )
        with contextlib.suppress(RevisionConflict):  # of the same key, by somebody who has checked it too
            await self._connection.if_allowed(self._bucket.subject(name), writing)

    async def _forget_seal(self, key_id: str) -> None:
        """Take out the seal of a revoked key. It counts no more; but what the key is known by need not stay."""
        entry = await self._bucket.get(f"{SEALS}{key_id}")
        if entry is not None:
            with contextlib.suppress(RevisionConflict):  # a gateway wrote it anew: it is void all the same
                await self._bucket.purge(f"{SEALS}{key_id}", entry.revision)


def read(name: str, raw: bytes | None) -> ApiKeyRecord | None:
    """Read what is stored under a name in the bucket; ``None`` if it is no record of the key that the name says."""
    key_id = name.removeprefix(PREFIX)
    try:
        record = (ApiKeyRecord if name == key_id else ExistingKey).from_json(raw or b"")
    except ValueError:
        if raw:
            log.warning("the record of an api key cannot be read; the key is refused", key_id=key_id)
        return None
    return record if record.key_id == key_id and is_key_id(key_id) else None


def read_seal(key_id: str, raw: bytes | None) -> Seal | None:
    """Read the seal of a key; ``None`` if it is none of this key."""
    try:
        seal = Seal.from_json(raw or b"")
    except ValueError:
        return None  # then the key is checked anew
    return seal if seal.key_id == key_id else None
