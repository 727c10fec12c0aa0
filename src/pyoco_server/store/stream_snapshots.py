"""A whole stream out of NATS and into it, by JetStream's snapshot API.

A snapshot takes its time, and the stream goes on meanwhile. NATS reads it from its first to its last message of the
moment when it was asked; a key that is written again in between loses its old message before it was read, and its new
one lies behind the end: it would be in neither. So a stream whose messages replace each other is read on, from the
snapshot's end to the stream's, and what is found there belongs to the snapshot.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pyoco_server.errors import CommandFailed, StoreUnavailable
from pyoco_server.store.connection import Connection

_CHUNK = 128 * 1024
_WINDOW = 4 * 1024 * 1024
"""What NATS may have sent and we not acknowledged; it bounds our memory."""
_ANSWER_SEC = 120.0
"""An older NATS checks every message before it answers."""
_CHUNK_SEC = 30.0
_RESTORED_SEC = 600.0
"""After its last chunk NATS may have to build the stream's index."""
_CATCH_UP_SEC = 60.0
_NO_MESSAGE = 10037
_NO_STREAM = 10059
_EXISTS = 10130
_HINTS = {
    10005: "Lower PYOCO_NATS_REPLICAS.",
    10074: "This NATS is no cluster: set PYOCO_NATS_REPLICAS=1.",
    10047: "Give NATS's disk more room, or raise its max_file_store.",
}
_NOT_AGAIN = ("Nats-Expected-", "Nats-Batch-")
"""Headers that were conditions of the first writing."""


@dataclass(frozen=True)
class Taken:
    """What NATS told of the stream when it began the snapshot."""

    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def replaces(self) -> bool:
        """Tell whether new messages of the stream take the place of older ones."""
        return bool(self.config.get("max_msgs_per_subject", -1) > 0 or self.config.get("allow_rollup_hdrs"))


async def take(connection: Connection, stream: str, write: Callable[[bytes], None]) -> Taken | None:
    """Give a stream's snapshot, its consumers included, a piece at a time; ``None`` if there is no such stream.

    Raises:
        StoreUnavailable: NATS went away, or broke off.
    """
    what = f"taking the snapshot of {stream}"
    client = connection.client
    inbox = client.new_inbox()
    wish = {"deliver_subject": inbox, "chunk_size": _CHUNK, "window_size": _WINDOW, "jsck": True}
    with connection.errors(what):
        subscription = await client.subscribe(inbox)
        try:
            answer = await _ask(
                connection, f"$JS.API.STREAM.SNAPSHOT.{stream}", wish, what, _ANSWER_SEC, besides=_NO_STREAM
            )
            if answer is None:
                return None
            chunks = 0
            while (message := await subscription.next_msg(timeout=_CHUNK_SEC)).data:
                write(message.data)
                if message.reply:  # the last one has none
                    chunks += 1
                    if message.reply.rpartition(".")[2] != str(chunks):
                        raise StoreUnavailable(f"{what}: a piece was lost on the way", hint="Try again.")
                    await client.publish(message.reply)
        finally:
            await subscription.unsubscribe()
    headers = message.headers or {}
    if headers.get("Status", "204") != "204":
        raise StoreUnavailable(f"{what}: NATS broke off: {headers.get('Description', headers)}", hint="Try again.")
    return Taken(answer["config"], answer["state"])


async def put(connection: Connection, config: dict[str, Any], state: dict[str, Any], chunks: Iterable[bytes]) -> bool:
    """Make a stream of a snapshot; ``False`` if there is one of its name.

    Args:
        connection: The connection.
        config: The stream's configuration; it need not be that of the snapshot.
        state: As it was told with the snapshot.
        chunks: The snapshot.

    Raises:
        CommandFailed: NATS refuses it.
        StoreUnavailable: NATS went away.
    """
    stream = config["name"]
    what = f"restoring {stream}"
    asked = {"config": config, "state": state}
    answer = await _ask(connection, f"$JS.API.STREAM.RESTORE.{stream}", asked, what, _CHUNK_SEC, besides=_EXISTS)
    if answer is None:
        return False
    largest = min(_CHUNK, connection.max_payload)
    with connection.errors(what):
        for chunk in chunks:
            for at in range(0, len(chunk), largest):
                piece = chunk[at : at + largest]
                said = await connection.client.request(answer["deliver_subject"], piece, timeout=_CHUNK_SEC)
                if said.data:
                    _refuse(json.loads(said.data), what)
        said = await connection.client.request(answer["deliver_subject"], b"", timeout=_RESTORED_SEC)
    _refuse(json.loads(said.data), what)
    return True


async def create(connection: Connection, config: dict[str, Any], *, what: str) -> None:
    """Make an empty stream.

    Args:
        connection: The connection.
        config: Its configuration.
        what: Why, for the message when it is refused: "trying to …".

    Raises:
        CommandFailed: NATS refuses it.
        StoreUnavailable: NATS went away.
    """
    await _ask(connection, f"$JS.API.STREAM.CREATE.{config['name']}", config, what, _CHUNK_SEC)


async def configure(connection: Connection, config: dict[str, Any]) -> None:
    """Change a stream's configuration; what the client's own types do not know stays.

    Raises:
        CommandFailed: NATS refuses it.
        StoreUnavailable: NATS went away.
    """
    stream = config["name"]
    await _ask(connection, f"$JS.API.STREAM.UPDATE.{stream}", config, f"changing {stream}", _CHUNK_SEC)


async def changes_after(connection: Connection, stream: str, seq: int) -> AsyncIterator[bytes]:
    """Give the messages behind a sequence up to the end, as NATS describes them: one line of JSON each.

    Asked of the stream's leader, since a replica may be behind. What is written meanwhile is read too; so the end is
    reached when every subject's newest message was either there before ``seq`` or has been given.

    Raises:
        StoreUnavailable: NATS went away, or the stream changes faster than it can be read.
    """
    what = f"reading what changed in {stream}"
    deadline = time.monotonic() + _CATCH_UP_SEC
    while True:
        wish = {"seq": seq + 1, "next_by_subj": ">"}
        answer = json.loads(
            (await connection.request(f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps(wish).encode(), what=what)).data
        )
        error = answer.get("error")
        if error and error.get("err_code") == _NO_MESSAGE:
            return
        if error:
            raise StoreUnavailable(f"{what}: NATS answered {error.get('description') or error}")
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"{what}: it changes faster than it can be read", hint="Try again with less load.")
        seq = answer["message"]["seq"]
        yield json.dumps(answer["message"]).encode() + b"\n"


async def replay(connection: Connection, line: bytes) -> None:
    """Write one message of ``changes_after`` into its stream.

    Raises:
        StoreUnavailable: NATS went away, or refuses.
    """
    message = json.loads(line)
    data, raw = (base64.b64decode(message.get(field, "")) for field in ("data", "hdrs"))
    fields = (header.partition(":") for header in raw.decode().split("\r\n")[1:] if header)
    headers = {name: value.strip() for name, _, value in fields if not name.startswith(_NOT_AGAIN)}
    with connection.errors(f"restoring {message['subject']}"):
        await connection.js.publish(message["subject"], data, headers=headers or None)


async def _ask(
    connection: Connection, subject: str, wish: dict[str, Any], what: str, timeout: float, besides: int | None = None
) -> dict[str, Any] | None:
    """Send a request of JetStream's; ``None`` if the answer is the error ``besides``.

    Raises:
        CommandFailed: it is another error.
        StoreUnavailable: there is no answer.
    """
    with connection.errors(what):
        answer = await connection.client.request(subject, json.dumps(wish).encode(), timeout=timeout)
    said: dict[str, Any] = json.loads(answer.data)
    if besides is not None and (said.get("error") or {}).get("err_code") == besides:
        return None
    _refuse(said, what)
    return said


def _refuse(said: dict[str, Any], what: str) -> None:
    """Raise what NATS refuses.

    Raises:
        CommandFailed: it does.
    """
    error = said.get("error")
    if error:
        hint = _HINTS.get(error.get("err_code"), "")
        raise CommandFailed(f"{what}: NATS answered {error.get('description') or error}", hint=hint)
