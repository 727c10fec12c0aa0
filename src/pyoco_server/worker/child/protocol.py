"""What worker and child say to each other: JSON messages, each behind its length, over one socket.

Never pickle: what comes from the child was made by user code.
"""

import json
import socket
import struct
from typing import Any

Message = dict[str, Any]

LENGTH = struct.Struct(">I")
LOST_WORKER = 97
"""Exit code of a child that can no longer be heard, because the worker died or user code closed its socket."""


def encode(message: Message) -> bytes:
    """Give a message's bytes on the wire."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


def receive_message(sock: socket.socket) -> Message | None:
    """Read one message, blocking; ``None`` when the other side is gone."""
    head = _receive_exactly(sock, LENGTH.size)
    body = _receive_exactly(sock, LENGTH.unpack(head)[0]) if head else None
    return json.loads(body) if body else None


def _receive_exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        try:
            part = sock.recv(min(size, 1 << 20))
        except OSError:
            return None
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
