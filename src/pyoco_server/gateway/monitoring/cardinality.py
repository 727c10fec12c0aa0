"""Bounds how many different labels a metric gets: each costs memory here and in Prometheus for ever."""

from pyoco_server.model.text.clean import clean_text

OTHER = "other"
_LONGEST = 100


class Bounded:
    """Lets the first combinations of labels through; what comes later is counted together.

    Args:
        most: How many combinations are told apart.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[tuple[str, ...]] = set()

    def labels(self, *values: object, apart: str = "") -> tuple[str, ...]:
        """Give the labels to count under.

        Args:
            values: What they should be; what is no text, or empty, is ``other``.
            apart: What these are counted for: the same labels of another one are a combination of their own.
        """
        wanted = tuple(clean_text(value, _LONGEST) if isinstance(value, str) and value else OTHER for value in values)
        known = (apart, *wanted)
        if known not in self._known:
            if len(self._known) >= self._most:
                return (OTHER,) * len(values)
            self._known.add(known)
        return wanted
