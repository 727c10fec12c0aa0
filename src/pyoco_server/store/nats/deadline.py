"""One deadline for all that a request asks of NATS, so that it is answered before its sender has stopped waiting."""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

ANSWER_SEC = 8.5
"""Clients give up after 10 s by default. A new leader is there within 4 to 9 s."""
_SHORTEST_TRY = 0.3
"""What is left for each call when it is over: to take back what was begun, most of all."""

_over_at: ContextVar[float | None] = ContextVar("over_at", default=None)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let no call of this block wait for a leader, or for an acknowledgement, beyond so many seconds from now."""
    earlier = _over_at.get()
    ends = time.monotonic() + seconds
    token = _over_at.set(ends if earlier is None else min(earlier, ends))
    try:
        yield
    finally:
        _over_at.reset(token)


def is_over() -> bool:
    """Tell whether the deadline, if there is one, is past."""
    ends = _over_at.get()
    return ends is not None and time.monotonic() >= ends


def for_try(longest: float) -> float:
    """Give the seconds that one try may take, ``longest`` at most."""
    ends = _over_at.get()
    return longest if ends is None else max(_SHORTEST_TRY, min(longest, ends - time.monotonic()))
