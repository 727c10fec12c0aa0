"""What is wrong with a graph, and where."""

from typing import NamedTuple


class Spot(NamedTuple):
    """A place in the texts of a flow's graph.

    Args:
        pipe: Whose text it is in; ``None`` for that of the graph itself.
        at: The position in the text.
    """

    pipe: str | None
    at: int


class GraphProblem(Exception):
    """A graph cannot be used.

    Args:
        message: Why, in a sentence.
        spot: Where.
        hint: What to write instead.
    """

    def __init__(self, message: str, spot: Spot, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.spot = spot
        self.hint = hint
