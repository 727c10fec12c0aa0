"""How often the log tells of what may happen again and again: now and then, with how often it has happened."""

from collections import OrderedDict
from dataclasses import dataclass

_MOST = 4096
_EVERY_SEC = 60.0


@dataclass
class _Cause:
    told_at: float = float("-inf")
    untold: int = 0


class Reports:
    """Counts by cause, such as an address or a sentence; of the causes the last ones are remembered."""

    def __init__(self) -> None:
        self._causes: OrderedDict[str, _Cause] = OrderedDict()

    def due(self, cause: str, now: float, every_sec: float = _EVERY_SEC) -> int:
        """Count once more, and return of how many times a line should tell now; 0 for no line.

        Args:
            cause: Who or what it is.
            now: Monotonic seconds.
            every_sec: A cause is told again after so many seconds at the earliest.
        """
        found = self._causes.setdefault(cause, _Cause())
        self._causes.move_to_end(cause)
        if len(self._causes) > _MOST:
            self._causes.popitem(last=False)
        found.untold += 1
        if now - found.told_at < every_sec:
            return 0
        times, found.told_at, found.untold = found.untold, now, 0
        return times
