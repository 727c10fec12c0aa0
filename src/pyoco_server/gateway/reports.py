"""How often the log tells of what anybody can cause: one line a minute and address, with how often it happened."""

from collections import OrderedDict
from dataclasses import dataclass

_MOST = 4096
_EVERY_SEC = 60.0


@dataclass
class _Address:
    told_at: float = float("-inf")
    untold: int = 0


class Reports:
    """Counts by address; of the addresses the last ones are remembered."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def due(self, address: str, now: float) -> int:
        """Count once more, and give of how many times a line should tell now; 0 for no line.

        Args:
            address: Who causes it.
            now: Monotonic seconds.
        """
        found = self._addresses.setdefault(address, _Address())
        self._addresses.move_to_end(address)
        if len(self._addresses) > _MOST:
            self._addresses.popitem(last=False)
        found.untold += 1
        if now - found.told_at < _EVERY_SEC:
            return 0
        times, found.told_at, found.untold = found.untold, now, 0
        return times
