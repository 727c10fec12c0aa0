"""What worker and child say to each other: JSON messages, each behind its length, over one socket.

Never pickle: what comes from the child was made by user code.
"""

import asyncio
import json
import socket
import struct
from typing import Any

Message = dict[str, Any]

_LENGTH = struct.Struct(">I")
MAX_MESSAGE = 64 * 1024 * 1024
LOST_WORKER = 97
"""Exit code of a child that can no longer be heard, because the worker died or user code closed its socket."""


def encode(message: Message) -> bytes:
    """Give a message's bytes on the wire."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """Read one message; ``None`` when the other side is gone or does not speak this protocol."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_MESSAGE:
            return None
        message = json.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError, ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def receive_message(sock: socket.socket) -> Message | None:
    """Read one message, blocking; ``None`` when the other side is gone."""
    head = _receive_exactly(sock, _LENGTH.size)
    body = _receive_exactly(sock, _LENGTH.unpack(head)[0]) if head else None
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
