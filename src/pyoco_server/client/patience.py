"""How long to bear a server that is away, and how to pause between two tries."""

import time

from pyoco_server.client.errors import ApiError, CannotConnect

GIVE_UP_SEC = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 3.0
_AWAY = {502, 503, 504}
"""A server or a proxy that says: not now."""


class Patience:
    """Counts how long a server has been away.

    Args:
        give_up_sec: Seconds after its first failure at which a server is given up.
        deadline: Monotonic time at which it ends in any case; ``None`` for no limit.
    """

    def __init__(self, *, give_up_sec: float = GIVE_UP_SEC, deadline: float | None = None) -> None:
        self._give_up_sec = give_up_sec
        self._deadline = deadline
        self.renew()

    def renew(self) -> None:
        """The server is there."""
        self._away_since: float | None = None
        self._next = _FIRST_PAUSE

    def next_pause(self, error: CannotConnect | ApiError) -> float:
        """Give the seconds to pause before the next try; raise an error that no try would mend, or that lasts too long.

        Args:
            error: Why the last try failed.
        """
        if error.lasts if isinstance(error, CannotConnect) else error.status not in _AWAY:
            raise error
        now = time.monotonic()
        self._away_since = now if self._away_since is None else self._away_since
        left = self._away_since + self._give_up_sec - now
        if left <= 0:
            raise error
        return min(self._grow(), left)

    def bear(self, error: CannotConnect | ApiError) -> None:
        """Pause before the next try, or raise, as ``next_pause`` does."""
        self._sleep(self.next_pause(error))

    def pause(self) -> None:
        """Wait, each time longer, never past the deadline."""
        self._sleep(self._grow())

    def _grow(self) -> float:
        pause, self._next = self._next, min(self._next * 2, _LONGEST_PAUSE)
        return pause

    def _sleep(self, seconds: float) -> None:
        left = seconds if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        time.sleep(min(seconds, left))
