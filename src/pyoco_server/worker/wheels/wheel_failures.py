"""What went wrong with a wheel or an environment, and when it is worth another try."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

LONGEST = 300.0
"""Seconds between two tries at most."""


@dataclass(frozen=True)
class Trouble:
    """One thing that does not work.

    Args:
        name: Of a wheel, or of what failed.
        reason: Why, in a sentence.
        tries: How often in a row.
        again_at: When to try again (monotonic).
    """

    name: str
    reason: str
    tries: int
    again_at: float


class Troubles:
    """Remembers troubles by digest; each further try waits twice as long.

    Args:
        first: Seconds until the second try.
        longest: Seconds between two tries at most.
    """

    def __init__(self, first: float, longest: float = LONGEST) -> None:
        self._first = first
        self._longest = max(longest, first)
        self._known: dict[str, Trouble] = {}

    def note(self, digest: str, name: str, reason: str) -> None:
        """Remember a failure."""
        tries = self._known[digest].tries + 1 if digest in self._known else 1
        wait = min(self._first * 2 ** min(tries - 1, 16), self._longest)
        self._known[digest] = Trouble(name, reason, tries, time.monotonic() + wait)

    def forget(self, digest: str) -> None:
        """It works now."""
        self._known.pop(digest, None)

    def keep_only(self, digests: Iterable[str]) -> None:
        """Forget what is not there any more."""
        wanted = set(digests)
        self._known = {digest: trouble for digest, trouble in self._known.items() if digest in wanted}

    def waiting(self, digest: str) -> bool:
        """Tell whether it is too early for another try."""
        return digest in self._known and self._known[digest].again_at > time.monotonic()

    def get(self, digest: str) -> Trouble | None:
        """Give what is known of a failure."""
        return self._known.get(digest)

    def all(self) -> list[Trouble]:
        """Give every trouble."""
        return list(self._known.values())

    def next_try_in(self, digest: str | None = None) -> float:
        """Return the seconds until the next try of one, 0 if it is not known; or until the earliest of all.

        That is infinite if there is none.
        """
        if digest is not None:
            trouble = self._known.get(digest)
            return max(0.0, trouble.again_at - time.monotonic()) if trouble is not None else 0.0
        return max(
            0.0, min((trouble.again_at for trouble in self._known.values()), default=float("inf")) - time.monotonic()
        )
