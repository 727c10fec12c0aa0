"""What was written to a stream while a snapshot of it was taken: read from the snapshot's end, and written again.

Several at a time are read by direct gets, which any replica answers, perhaps with yesterday's stream; where the end is
only the stream's leader knows.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.connection import Connection
from pyoco_server.store.direct import DirectReader

_CATCH_UP_SEC = 60.0
_AT_ONCE = 64
_TIMES_AT_END = 20
_NO_MESSAGE = 10037
_NOT_STORED = frozenset({"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending",
                         "Nats-Last-Sequence", "Nats-UpTo-Sequence"})  # fmt: skip
"""Headers by which a direct get describes a message."""
_NOT_AGAIN = ("Nats-Expected-", "Nats-Batch-")
"""Headers that were conditions of the first writing."""


async def changes_after(connection: Connection, stream: str, seq: int, *, direct: bool) -> AsyncIterator[bytes]:
    """Give the messages behind a sequence up to the end, one line of JSON each: ``seq subject headers data``.

    What is written meanwhile is read too. The end is reached when nothing follows: then every subject's newest message
    was either there before ``seq`` or has been given. Where writing never pauses that moment never comes. Then it ends
    after so many times at what was the stream's end a moment before that only a subject which is written again within
    milliseconds, each time, could be missed.

    Args:
        connection: The connection.
        stream: The stream.
        seq: The sequence.
        direct: Whether the stream takes direct gets.

    Raises:
        StoreUnavailable: NATS went away, or the stream changes faster than it can be read.
    """
    what = f"reading what changed in {stream}"
    reader = DirectReader(connection, stream)
    deadline, times_at_end = time.monotonic() + _CATCH_UP_SEC, 0
    while times_at_end < _TIMES_AT_END:
        with connection.errors(what):
            end = (await connection.js.stream_info(stream)).state.last_seq
        for message in await reader.read(start=seq + 1, subject=">", limit=_AT_ONCE) if direct else ():
            headers = {name: value for name, value in message.headers.items() if name not in _NOT_STORED}
            yield _line(message.seq, message.subject, headers, base64.b64encode(message.data).decode())
            seq = message.seq
        following = await _next(connection, stream, seq, what)
        if following is None:
            return
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"{what}: it changes faster than it can be read", hint="Try again with less load.")
        seq = following["seq"]
        yield _line(seq, following["subject"], _headers(following), following.get("data", ""))
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


async def _next(connection: Connection, stream: str, seq: int, what: str) -> dict[str, Any] | None:
    """Ask the stream's leader for the first message behind a sequence; ``None`` if there is none."""
    wish = json.dumps({"seq": seq + 1, "next_by_subj": ">"}).encode()
    answer = json.loads((await connection.request(f"$JS.API.STREAM.MSG.GET.{stream}", wish, what=what)).data)
    error = answer.get("error")
    if error and error.get("err_code") == _NO_MESSAGE:
        return None
    if error:
        raise StoreUnavailable(f"{what}: NATS answered {error.get('description') or error}")
    return dict(answer["message"])


def _headers(message: Mapping[str, Any]) -> dict[str, str]:
    raw = base64.b64decode(message.get("hdrs", "")).decode()
    fields = (header.partition(":") for header in raw.split("\r\n")[1:] if header)
    return {name: value.strip() for name, _, value in fields}


def _line(seq: int, subject: str, headers: Mapping[str, str], data: str) -> bytes:
    return json.dumps({"seq": seq, "subject": subject, "headers": headers, "data": data}).encode() + b"\n"
