"""What was written to a stream while a snapshot of it was taken: read from the snapshot's end, and written again.

Several at a time are read by direct gets, which any replica answers, perhaps with yesterday's stream; where the end is
only the stream's leader knows.
"""

import base64
import json
import time
from collections.abc import AsyncIterator

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import DirectReader, StreamMessage, next_message

_CATCH_UP_SEC = 60.0
_AT_ONCE = 64
_TIMES_AT_END = 20
_NOT_STORED = frozenset({"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending",
                         "Nats-Last-Sequence", "Nats-UpTo-Sequence"})  # fmt: skip
"""Headers by which a message that was read is described."""
_NOT_AGAIN = ("Nats-Expected-", "Nats-Batch-")
"""Headers that were conditions of the first writing."""


async def changes_after(connection: Connection, stream: str, seq: int) -> AsyncIterator[bytes]:
    """Give the messages behind a sequence up to the end, one line of JSON each: ``seq subject headers data``.

    What is written meanwhile is read too. The end is reached when nothing follows: then every subject's newest message
    was either there before ``seq`` or has been given. Where writing never pauses that moment never comes. Then it ends
    after so many times at what was the stream's end a moment before that only a subject which is written again within
    milliseconds, each time, could be missed.

    Args:
        connection: The connection.
        stream: The stream.
        seq: The sequence.

    Raises:
        StoreUnavailable: NATS went away, or the stream changes faster than it can be read.
    """
    what = f"reading what changed in {stream}"
    reader = DirectReader(connection, stream)
    deadline, times_at_end = time.monotonic() + _CATCH_UP_SEC, 0
    while times_at_end < _TIMES_AT_END:
        with connection.errors(what):
            end = (await connection.js.stream_info(stream)).state.last_seq
        for message in await reader.read(start=seq + 1, subject=">", limit=_AT_ONCE):
            yield _line(message)
            seq = message.seq
        following = await next_message(connection, stream, seq + 1, ">")
        if following is None:
            return
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"{what}: it changes faster than it can be read", hint="Try again with less load.")
        seq = following.seq
        yield _line(following)
        times_at_end += seq >= end


async def replay(connection: Connection, line: bytes) -> None:
    """Write one message of ``changes_after`` into its stream; it may be repeated.

    Raises:
        StoreUnavailable: NATS went away, or refuses.
    """
    message = json.loads(line)
    headers = {name: value for name, value in message["headers"].items() if not name.startswith(_NOT_AGAIN)}
    headers.setdefault("Nats-Msg-Id", f"restored:{message['seq']}")
    with connection.errors(f"restoring {message['subject']}"):
        await connection.js.publish(message["subject"], base64.b64decode(message["data"]), headers=headers)


def _line(message: StreamMessage) -> bytes:
    headers = {name: value for name, value in message.headers.items() if name not in _NOT_STORED}
    data = base64.b64encode(message.data).decode()
    line = {"seq": message.seq, "subject": message.subject, "headers": headers, "data": data}
    return json.dumps(line).encode() + b"\n"
