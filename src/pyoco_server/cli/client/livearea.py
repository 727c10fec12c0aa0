"""The last rows of a terminal, which change while what stands above them does not."""

import shutil
import sys

from pyoco_server.model.text.terminal import plain

_UP_AND_ERASE = "\x1b[{}A\x1b[J"


class LiveArea:
    """Draws rows at the end of the output, and takes them away again before anything else is printed."""

    def __init__(self) -> None:
        self._drawn = 0

    def draw(self, rows: list[str]) -> None:
        """Draw as many of the last rows as there is room for; the cursor is at the beginning of a line."""
        from rich.cells import set_cell_size  # noqa: PLC0415 - other commands do without

        self.erase()
        columns, lines = shutil.get_terminal_size()
        for row in rows[-max(1, lines - 1) :]:
            # A row that the terminal wraps would be two when it is erased.
            cut = set_cell_size(plain(row.expandtabs()), columns - 1).rstrip()
            sys.stdout.write(cut + "\n")
            self._drawn += 1
        sys.stdout.flush()

    def erase(self) -> None:
        """Take away what was drawn."""
        if self._drawn:
            sys.stdout.write(_UP_AND_ERASE.format(self._drawn))
            self._drawn = 0
