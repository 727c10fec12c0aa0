"""Which flows the dead letters need: a letter can be replayed for as long as it is there."""

import time
from collections import OrderedDict

from pyoco_server.gateway.index.json_fields import parse
from pyoco_server.store.deadletters import DeadLetterStore

_PAGE = 64


class LetterFlows:
    """Reads each letter once and remembers its flow.

    A letter that was taken out since is noticed where it is the last thing that holds a flow; no other cares.

    Args:
        letters: The letters.
    """

    def __init__(self, letters: DeadLetterStore) -> None:
        self._letters = letters
        self._read_to = 0
        self._by_flow: dict[str, OrderedDict[int, None]] = {}

    async def tidy(self) -> None:
        """Forget letters that are gone by the stream's own bounds, and all of them if it was made anew.

        Raises:
            StoreUnavailable: NATS is away.
        """
        first, last = await self._letters.ends()
        if last < self._read_to:
            self._read_to = 0
            self._by_flow.clear()
        for sha256, ids in list(self._by_flow.items()):
            while ids and next(iter(ids)) < first:
                ids.popitem(last=False)
            if not ids:
                del self._by_flow[sha256]

    async def read_on(self, deadline: float) -> bool:
        """Read the letters that came since the last time.

        Args:
            deadline: Monotonic time at which to leave off.

        Returns:
            Whether all were read.

        Raises:
            StoreUnavailable: NATS is away.
        """
        while time.monotonic() < deadline:
            page = await self._letters.read_on(self._read_to, _PAGE)
            for letter in page:
                self._read_to = letter.id
                sha256 = (parse(letter.raw) or {}).get("workflow_yaml_sha256")
                if isinstance(sha256, str):
                    self._by_flow.setdefault(sha256, OrderedDict())[letter.id] = None
            if len(page) < _PAGE:
                return True
        return False

    async def hold(self, sha256: str) -> bool:
        """Tell whether a letter needs a flow.

        Raises:
            StoreUnavailable: NATS is away.
        """
        ids = self._by_flow.get(sha256, OrderedDict())
        while ids:
            newest = next(reversed(ids))  # the one that stays longest
            if await self._letters.get(newest) is not None:
                return True
            del ids[newest]
        self._by_flow.pop(sha256, None)
        return False
