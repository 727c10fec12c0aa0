"""How much of a run's output is kept; what goes beyond is counted."""

from pyoco_server.worker.child.frames import LINE_COST


class Allowance:
    """A budget of bytes. Once a line does not fit, nothing after it is taken: what is kept has no holes.

    Args:
        limit: Bytes; each line costs ``LINE_COST`` beside its text.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.is_spent = False
        self.cut_lines = 0
        self.cut_bytes = 0

    def take(self, size: int) -> bool:
        """Tell whether a line with ``size`` bytes of text is kept; if not, it is counted."""
        if not self.is_spent and size + LINE_COST <= self._left:
            self._left -= size + LINE_COST
            return True
        self.cut(1, size)
        return False

    def cut(self, lines: int, size: int) -> None:
        """Count what is not kept."""
        self.is_spent = True
        self.cut_lines += lines
        self.cut_bytes += size

    def take_counts(self) -> tuple[int, int]:
        """Give the lines and bytes that were cut since the last call."""
        counts = (self.cut_lines, self.cut_bytes)
        self.cut_lines = self.cut_bytes = 0
        return counts
