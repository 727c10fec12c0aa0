"""The API keys as the gateway knows them: told of every change at once, and never trusted for longer than seconds."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from pyoco_server.model.apikey import ApiKeyRecord
from pyoco_server.model.existing.api_key import PREFIX, SEALS, ExistingKey, Seal
from pyoco_server.store.keys import KeyStore, StoredKey, read, read_seal
from pyoco_server.store.nats.feed import Change

_FRESH_SEC = 3.0
"""For how long what was read is good. With the two seconds between the events of a stream a revoked key stops within
five seconds, also where the word of the change does not come through."""
_MOST = 10_000


@dataclass
class _Known:
    record: ApiKeyRecord | None
    revision: int
    read_at: float


class KeyRing:
    """Remembers keys.

    The bucket's feed brings changes in at once; but a feed may be silent for some seconds before anybody can tell, so
    an entry is read again when it is used and older than that.

    Args:
        store: Where the keys are.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._reading: dict[str, asyncio.Task[StoredKey | None]] = {}
        self._seals: OrderedDict[str, Seal] = OrderedDict()

    def apply(self, changes: list[Change]) -> None:
        """Take in what the feed tells."""
        for change in changes:
            if change.key.startswith(SEALS):
                self._learn_seal(change.key.removeprefix(SEALS), change.value)
                continue
            key_id = change.key.removeprefix(PREFIX)
            known = self._known.get(key_id)
            # A key of ours is not changed under the other name.
            if key_id == change.key or known is None or not _is_ours(known.record):
                self._learn(key_id, StoredKey(read(change.key, change.value), change.revision), None)

    def clear(self) -> None:
        """Forget everything: the bucket was made anew."""
        self._known.clear()
        self._seals.clear()

    async def seal(self, key_id: str) -> Seal | None:
        """Return the seal of a key of the existing system; ``None`` if there is none.

        Raises:
            StoreUnavailable: it has to be read, and NATS does not answer.
        """
        return self._seals.get(key_id) or await self._store.seal(key_id)

    def keep_seal(self, seal: Seal) -> None:
        """Remember a seal, stored or not."""
        self._seals[seal.key_id] = seal
        self._seals.move_to_end(seal.key_id)
        if len(self._seals) > _MOST:
            self._seals.popitem(last=False)

    def knows(self, key_id: str) -> bool:
        """Tell whether a key with this id has been heard of."""
        known = self._known.get(key_id)
        return known is not None and known.record is not None

    def records(self) -> list[ApiKeyRecord]:
        """Give what is known, however old."""
        return [known.record for known in self._known.values() if known.record]

    async def get(self, key_id: str) -> ApiKeyRecord | None:
        """Give a key's record; ``None`` if there is none.

        Raises:
            StoreUnavailable: it has to be read, and NATS does not answer.
        """
        known = self._known.get(key_id)
        if known is not None and time.monotonic() - known.read_at < _FRESH_SEC:
            self._known.move_to_end(key_id)
            return known.record
        began = time.monotonic()
        stored = await self._read(key_id)
        if stored is None:
            self._known.pop(key_id, None)  # taken out, or never there: no room for what anybody may make up
            return None
        return self._learn(key_id, stored, began).record

    def _learn_seal(self, key_id: str, raw: bytes | None) -> None:
        seal = read_seal(key_id, raw)
        if seal is not None:
            self.keep_seal(seal)
        elif raw is None:
            self._seals.pop(key_id, None)

    async def _read(self, key_id: str) -> StoredKey | None:
        """Read a record; requests of one moment share one reading."""
        task = self._reading.get(key_id)
        if task is None:
            task = asyncio.create_task(self._store.get(key_id), name="read-api-key")
            self._reading[key_id] = task
            task.add_done_callback(lambda _: self._reading.pop(key_id, None))
        return await asyncio.shield(task)

    def _learn(self, key_id: str, stored: StoredKey, read_at: float | None) -> _Known:
        known = self._known.get(key_id)
        if known is None:
            known = self._known[key_id] = _Known(stored.record, stored.revision, float("-inf"))
        elif stored.revision > known.revision or (_is_ours(stored.record) and isinstance(known.record, ExistingKey)):
            known.record, known.revision = stored.record, stored.revision
        if read_at is not None:
            known.read_at = read_at
        self._known.move_to_end(key_id)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return known


def _is_ours(record: ApiKeyRecord | None) -> bool:
    return record is not None and not isinstance(record, ExistingKey)
