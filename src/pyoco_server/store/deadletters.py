"""The stream of dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass

from nats.js.errors import NotFoundError

from pyoco_server.model.deadletter import DeadLetter
from pyoco_server.store.connection import Connection
from pyoco_server.store.direct import DirectReader, StreamMessage, remove_message
from pyoco_server.store.stream_state import read_stream

_ENVELOPE = 4096
"""What subject and headers take of NATS's payload limit."""
_MSG_ID = "Nats-Msg-Id"


@dataclass(frozen=True)
class StoredLetter:
    """A letter as it lies in the stream. Other programs write letters too: its body is not read here."""

    id: int
    """Its sequence in the stream."""
    tag: str
    raw: bytes
    key: str | None
    """The name of its cause; ``None`` where another program gave it none."""


class DeadLetterStore:
    """Publishing to ``pyoco.dlq.<tag>``, reading, and taking letters out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream = connection.settings.dlq_stream
        self._prefix = connection.settings.dlq_subject_prefix
        self._reader = DirectReader(connection, self._stream)
        # With replicas any of them answers a direct get, perhaps from before the letter was taken out.
        self._direct = connection.settings.nats_replicas == 1

    async def publish(self, letter: DeadLetter, key: str) -> int:
        """Store a dead letter, cut to what NATS takes.

        Args:
            letter: The letter.
            key: Names its cause: a second letter of the same cause is dropped by the server.

        Returns:
            The letter's id; that of the first one, if this is a repeat.

        Raises:
            StoreUnavailable: no acknowledgement; publishing again is safe.
        """
        limit = min(self._connection.max_payload - _ENVELOPE, self._connection.settings.max_run_snapshot_bytes)
        body = letter.fit(limit).to_json()
        with self._connection.errors("publishing a dead letter"):
            ack = await self._connection.js.publish(f"{self._prefix}.{letter.tag}", body, headers={_MSG_ID: key})
        return int(ack.seq)

    async def list(self, *, tag: str | None, before: int | None, limit: int) -> list[StoredLetter]:
        """Give letters, the newest first.

        Args:
            tag: Only this tag.
            before: Only letters with a lower id.
            limit: How many at most.

        Raises:
            StoreUnavailable: NATS is away.
        """
        subject = f"{self._prefix}.{tag or '>'}"
        return list(self._letters(await self._reader.newest(before=before, subject=subject, limit=limit)))

    async def read_on(self, after: int, limit: int) -> Sequence[StoredLetter]:
        """Give the next letters, the oldest first.

        Args:
            after: Id of the last letter that is known; 0 for none.
            limit: How many at most.

        Raises:
            StoreUnavailable: NATS is away.
        """
        return self._letters(await self._reader.read(start=after + 1, subject=f"{self._prefix}.>", limit=limit))

    async def ends(self) -> tuple[int, int]:
        """Give the lowest and the highest id that a letter can have now.

        Raises:
            StoreUnavailable: NATS is away.
        """
        state = await read_stream(self._connection, self._stream)
        return (state.first_seq, state.last_seq) if state else (0, 0)

    async def get(self, letter_id: int) -> StoredLetter | None:
        """Read a letter; ``None`` if there is none with this id (any more)."""
        js = self._connection.js
        try:
            with self._connection.errors(f"reading dead letter {letter_id}", missing=True):
                found = await js.get_msg(self._stream, seq=letter_id, direct=self._direct)
        except NotFoundError:
            return None
        key = (found.headers or {}).get(_MSG_ID)
        return StoredLetter(letter_id, self._tag(found.subject or ""), found.data or b"", key)

    async def remove(self, letter_id: int) -> bool:
        """Take a letter out; ``False`` if it was not there."""
        return await remove_message(self._connection, self._stream, letter_id)

    def _letters(self, messages: Sequence[StreamMessage]) -> Sequence[StoredLetter]:
        return [
            StoredLetter(message.seq, self._tag(message.subject), message.data, message.headers.get(_MSG_ID))
            for message in messages
        ]

    def _tag(self, subject: str) -> str:
        return subject.removeprefix(f"{self._prefix}.")
