"""What the gateway and its checker processes say to each other: a head in JSON, and a body of bytes.

Errors travel by the names of their classes: only those that a check raises on purpose are known.
"""

import json
import struct
from dataclasses import dataclass, field
from typing import Any

from pyoco_server.errors import InvalidFlow, InvalidInput, PyocoError, TooLarge

LENGTHS = struct.Struct("!IQ")
"""Before each frame: the lengths of its head and of its body."""
MOST_HEAD = 64 * 1024

_ERRORS: dict[str, type[PyocoError]] = {each.__name__: each for each in (InvalidFlow, InvalidInput, TooLarge)}


@dataclass(frozen=True)
class Frame:
    """One message.

    Args:
        head: What is asked, or what was found.
        body: A text, or what was made of it.
    """

    head: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""

    def encode(self) -> bytes:
        """Return it as it is sent."""
        head = json.dumps(self.head).encode()
        return b"".join((LENGTHS.pack(len(head), len(self.body)), head, self.body))


def told_error(error: PyocoError) -> dict[str, Any]:
    """Return an error as a head carries it."""
    return {"error": type(error).__name__, "told": vars(error)}


def error_in(head: dict[str, Any]) -> PyocoError | None:
    """Return the error that a head carries, as it was raised; ``None`` if it carries none."""
    if "error" not in head:
        return None
    kind = _ERRORS[head["error"]]
    error = kind.__new__(kind, head["told"]["message"])
    error.args = (head["told"]["message"],)
    vars(error).update(head["told"])
    return error
