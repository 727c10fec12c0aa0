"""The API keys: written by the admin command, read and followed by the gateways."""

from dataclasses import dataclass

import structlog

from pyoco_server.errors import KeyNotFound, RevisionConflict, StoreUnavailable
from pyoco_server.model.apikey import ApiKeyRecord, is_key_id
from pyoco_server.store import topology
from pyoco_server.store.bucket import Bucket
from pyoco_server.store.connection import Connection
from pyoco_server.store.direct import DirectReader

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
        entry = await self._bucket.get(key_id)
        return None if entry is None else StoredKey(read(key_id, entry.value), entry.revision)

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
            try:
                await self._bucket.update(key_id, revoked.to_json(), stored.revision)
            except RevisionConflict:
                continue
            return revoked
        raise StoreUnavailable(f"the api key {key_id} is written to faster than it can be changed")

    async def list(self) -> list[ApiKeyRecord]:
        """Give every key that can be read, the newest first."""
        messages = await self._reader.read(start=0, subject=self._bucket.subject("*"), limit=_MOST)
        found = [read(message.subject.rpartition(".")[2], message.data) for message in messages if message.data]
        return sorted((record for record in found if record), key=lambda record: -record.created_at)


def read(key_id: str, raw: bytes | None) -> ApiKeyRecord | None:
    """Read what is stored under a key's id; ``None`` if it is no record of this key."""
    try:
        record = ApiKeyRecord.from_json(raw or b"")
    except ValueError:
        if raw:
            log.warning("the record of an api key cannot be read; the key is refused", key_id=key_id)
        return None
    return record if record.key_id == key_id else None
