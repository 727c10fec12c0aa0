"""Which variables of the environment a flow may read by ``$env.NAME``: those that it names, and no others.

In flow.yaml they stand under ``runtime: expose_env``; a flow made in Python has them as its attribute ``expose_env``.
What a run's record shows has the names in the place of their values.
"""

import os
from collections.abc import Iterable
from typing import Any

from pyoco.core.models import Flow

_NAME = "expose_env"
_UNMISTAKABLE = 8
"""Values of so many characters are hidden wherever they stand; shorter ones may be any word, and only as an input."""


def expose(flow: Flow, names: Iterable[str]) -> None:
    """Let a flow read variables."""
    vars(flow)[_NAME] = tuple(names)


def exposed_by(flow: Flow) -> tuple[str, ...]:
    """Return the names of the variables that a flow may read."""
    names = vars(flow).get(_NAME, ())
    return (names,) if isinstance(names, str) else tuple(map(str, names))


class Mask:
    """Puts the names of variables into the place of their values.

    Args:
        names: The variables that are exposed; without any, nothing is changed.
    """

    def __init__(self, names: Iterable[str]) -> None:
        found = {name: value for name in names if (value := os.environ.get(name))}
        # The longest first: one may be part of another.
        longest_first = sorted(found.items(), key=lambda item: -len(item[1]))
        self._whole = {value: f"$env.{name}" for name, value in longest_first}
        self._anywhere = [(value, f"$env.{name}") for name, value in longest_first if len(value) >= _UNMISTAKABLE]

    def inputs(self, shown: Any) -> Any:
        """Return inputs as they are to be shown."""
        return self._changed(shown, self._whole) if self._whole else shown

    def other(self, shown: Any) -> Any:
        """Return anything else as it is to be shown: an output, a text."""
        return self._changed(shown, {}) if self._anywhere else shown

    def _changed(self, shown: Any, whole: dict[str, str]) -> Any:
        if isinstance(shown, str):
            if shown in whole:
                return whole[shown]
            for value, name in self._anywhere:
                shown = shown.replace(value, name)
            return shown
        if isinstance(shown, list):
            return [self._changed(item, whole) for item in shown]
        if isinstance(shown, dict):
            return {self._changed(key, {}): self._changed(item, whole) for key, item in shown.items()}
        return shown
