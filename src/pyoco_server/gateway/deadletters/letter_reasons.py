"""How many dead letters lie in their stream, by reason: each letter is read once, however often anybody asks."""

import asyncio
import time
from collections.abc import Callable

import structlog

from pyoco_server.gateway.index.json_fields import parse
from pyoco_server.model.deadletter import DeadLetterReason
from pyoco_server.store.deadletters import DeadLetterStore

log = structlog.get_logger(__name__)

REASONS = (*(reason.value for reason in DeadLetterReason), "other")
"""``other``: of another program's letters."""
_NONE = 0
_CODES = {reason: code for code, reason in enumerate(REASONS, 1)}
_PAGE = 64
_ROUND_SEC = 5.0
_READING_SEC = 0.2
"""For so long a round reads at most; the rest comes in later ones."""
_SOON_SEC = 0.5
"""Between rounds while not all is known."""


class LetterReasons:
    """Keeps a byte per letter. What was taken out, by whomever, is noticed by the stream's own count.

    Args:
        letters: The letters.
        received: Called with the reason of each letter that came since this gateway began to follow.
    """

    def __init__(self, letters: DeadLetterStore, received: Callable[[str], None]) -> None:
        self._letters = letters
        self._received = received
        self._looking = asyncio.Lock()
        self._done = False
        self._forget(None)

    def by_reason(self) -> dict[str, int] | None:
        """Tell how many there are, as of the last round; ``None`` until all were read once."""
        if not self._all_read:
            return None
        return {reason: self._codes.count(code) for reason, code in _CODES.items()}

    def pause(self) -> float:
        """Return for how many seconds a round may wait."""
        return _ROUND_SEC if self._done else _SOON_SEC

    async def round(self) -> bool:
        """Read what came, for a moment at most, and forget what went; whether it is all known then is the answer.

        Raises:
            StoreUnavailable: NATS is away.
        """
        self._done = False
        async with self._looking:
            self._done = await self._look()
        return self._done

    async def _look(self) -> bool:
        stream = await self._letters.stream()
        if stream is None:
            return False
        if stream.identity != self._stream or stream.last < self._next - 1:
            self._forget(stream.identity)
        self._drop_before(stream.first)
        if not await self._read_to(stream.last):
            return False
        known = self._codes[: max(0, stream.last + 1 - self._first)]  # more may have come since
        if len(known) - known.count(_NONE) != stream.count:
            await self._drop_removed()
        self._all_read = True
        return True

    def _forget(self, identity: str | None) -> None:
        self._stream: str | None = identity
        self._codes = bytearray()
        """Of the letters from ``_first`` to before ``_next``, in order."""
        self._first = self._next = 1
        self._all_read = False

    def _drop_before(self, first: int) -> None:
        if first > self._first:
            del self._codes[: first - self._first]
            self._first, self._next = first, max(first, self._next)

    async def _read_to(self, last: int) -> bool:
        deadline = time.monotonic() + _READING_SEC
        while self._next <= last:
            if time.monotonic() > deadline:
                return False
            page = await self._letters.read_on(self._next - 1, _PAGE)
            for letter in page:
                reason = (parse(letter.raw) or {}).get("reason")
                known = reason if isinstance(reason, str) and reason in _CODES else REASONS[-1]
                self._codes.extend(bytes(letter.id - self._next))
                self._codes.append(_CODES[known])
                self._next = letter.id + 1
                if self._all_read:
                    self._received(known)
            if len(page) < _PAGE:  # the last ones were taken out, or a replica does not have them yet
                break
        return True

    async def _drop_removed(self) -> None:
        """Drop what somebody took out of the middle; the server names it."""
        stream = await self._letters.stream(removed=True)
        for letter_id in stream.removed if stream else ():
            if self._first <= letter_id < self._next:
                self._codes[letter_id - self._first] = _NONE
