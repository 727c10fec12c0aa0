"""The stream of dead letters."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from nats.js import api

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.deadletter import DeadLetter
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import DirectReader, StreamMessage, remove_message
from pyoco_server.store.nats.messages import STREAM_NOT_FOUND, publish, read
from pyoco_server.store.status.stream_state import read_stream
from pyoco_server.store.topology import identity

_ENVELOPE = 4096
"""What subject and headers take of NATS's payload limit."""
_MSG_ID = "Nats-Msg-Id"
_PAGE = 64
_CLOCKS_APART = timedelta(seconds=1)
"""Record and letter may be stamped by two servers of a cluster."""


@dataclass(frozen=True)
class StoredLetter:
    """A letter as it lies in the stream. Other programs write letters too: its body is not read here."""

    id: int
    """Its sequence in the stream."""
    tag: str
    raw: bytes
    key: str | None
    """The name of its cause; ``None`` where another program gave it none."""


@dataclass(frozen=True)
class LetterStream:
    """What the server says of the letters' stream."""

    identity: str
    """Tells it from one that was made anew (``topology.identity``)."""
    first: int
    last: int
    count: int
    removed: Sequence[int]
    """Ids between the first and the last one that were taken out; empty if not asked for."""


class DeadLetterStore:
    """Publishing to ``pyoco.dlq.<tag>``, reading, and taking letters out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream = connection.settings.dlq_stream
        self._prefix = connection.settings.dlq_subject_prefix
        self._reader = DirectReader(connection, self._stream)

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
        subject = f"{self._prefix}.{letter.tag}"
        return await publish(
            self._connection, subject, body, {_MSG_ID: key}, what="publishing a dead letter", patient=True
        )

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

    async def after_end(self, stored_at: datetime, tag: str, pages: int) -> AsyncIterator[StoredLetter]:
        """Give the letters of a tag from a record's time on, the oldest first: that of its run is soon among them.

        Letters cannot be looked up by their run. But they are ordered by time, and a run's comes right after its end.

        Args:
            stored_at: When the record was stored, by NATS's clock.
            tag: The tag of its queue.
            pages: How many pages to read at most.

        Raises:
            StoreUnavailable: NATS is away.
        """
        start: int | datetime = stored_at - _CLOCKS_APART
        for _ in range(pages):
            messages = await self._reader.read(start=start, subject=f"{self._prefix}.{tag}", limit=_PAGE)
            for letter in self._letters(messages):
                yield letter
            if len(messages) < _PAGE:
                return
            start = messages[-1].seq + 1

    async def ends(self) -> tuple[int, int]:
        """Give the lowest and the highest id that a letter can have now.

        Raises:
            StoreUnavailable: NATS is away.
        """
        state = await read_stream(self._connection, self._stream)
        return (state.first_seq, state.last_seq) if state else (0, 0)

    async def stream(self, *, removed: bool = False) -> LetterStream | None:
        """Tell how the stream stands; ``None`` if it is missing.

        Args:
            removed: Whether to name the letters that were taken out of its middle.

        Raises:
            StoreUnavailable: NATS is away, or refuses.
        """
        what = f"looking at the stream {self._stream}"
        wish = json.dumps({"deleted_details": removed}).encode()
        told = json.loads((await self._connection.request(f"$JS.API.STREAM.INFO.{self._stream}", wish, what=what)).data)
        if error := told.get("error"):
            if error.get("err_code") == STREAM_NOT_FOUND:
                return None
            raise StoreUnavailable(f"{what}: NATS answered {error.get('description') or error}")
        state = told["state"]
        return LetterStream(
            identity=identity(api.StreamInfo.from_response(told)),
            first=state["first_seq"], last=state["last_seq"], count=state["messages"],
            removed=state.get("deleted") or (),
        )  # fmt: skip

    async def get(self, letter_id: int) -> StoredLetter | None:
        """Read a letter; ``None`` if there is none with this id (any more)."""
        found = await read(self._connection, self._stream, seq=letter_id, what=f"reading dead letter {letter_id}")
        if found is None:
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
