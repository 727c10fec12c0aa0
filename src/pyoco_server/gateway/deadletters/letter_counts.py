"""How many dead letters a caller may see: all tenants' lie in one stream, so a tenant's are counted by reading some."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.deadletters import letters
from pyoco_server.model.access import Caller
from pyoco_server.store.topology import StreamFigures

if TYPE_CHECKING:
    from pyoco_server.gateway.gateway import Gateway

_COUNTED = 100
"""So many letters of a tenant are counted; what matters is whether there are any."""
_FRESH_SEC = 5.0
_MOST_CALLERS = 1000


@dataclass(frozen=True)
class LetterCount:
    """How many letters there are.

    Attributes:
        complete: ``False`` if there may be more.
    """

    letters: int
    complete: bool


@dataclass(frozen=True)
class _Known:
    stream: StreamFigures
    counted_at: float
    count: LetterCount


class LetterCounts:
    """Counts letters, and remembers it while the stream stays as it is.

    Args:
        here: The gateway.
    """

    def __init__(self, here: "Gateway") -> None:
        self._here = here
        self._counting = asyncio.Lock()
        self._known: dict[Any, _Known] = {}

    async def of(self, who: Caller, stream: StreamFigures | None) -> LetterCount | None:
        """Count a caller's letters; ``None`` while NATS does not tell.

        Args:
            who: The caller.
            stream: How the stream of dead letters stands now.
        """
        if stream is None or who.figures is None:
            return LetterCount(stream.messages, complete=True) if stream else None
        async with self._counting:
            known = self._known.get(who.figures)
            if known and (known.stream == stream or time.monotonic() - known.counted_at < _FRESH_SEC):
                return known.count
            try:
                found, more = await letters.page(self._here, who, tag=None, before=None, limit=_COUNTED)
            except StoreUnavailable:
                return None  # the page and /ready say that NATS is away
            if len(self._known) >= _MOST_CALLERS:
                self._known.clear()
            count = LetterCount(len(found), complete=more is None)
            self._known[who.figures] = _Known(stream, time.monotonic(), count)
            return count
