"""Generators that tasks returned: the body of one that nobody reads never runs, though its task seems to work."""

import inspect
from types import GeneratorType
from typing import Any


class UnreadGenerators:
    """Knows which tasks returned generators that nobody has read; held no longer than by the engine itself."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._unread: set[str] = set()

    def note(self, task: str, result: Any) -> None:
        """Note what a task returned, in this round of a loop; what it returned in the last one is decided."""
        self._decide(task)
        if type(result) is GeneratorType:
            self._last[task] = result

    def decide(self) -> list[str]:
        """Return the tasks of which a generator was never begun, and let go of all of them."""
        for task in [*self._last]:
            self._decide(task)
        return sorted(self._unread)

    def _decide(self, task: str) -> None:
        last = self._last.pop(task, None)
        if last is not None and inspect.getgeneratorstate(last) == inspect.GEN_CREATED:
            self._unread.add(task)
