"""A whole stream out of NATS and into it, by JetStream's snapshot API.

A snapshot takes its time, and the stream goes on meanwhile. NATS reads it from its first to its last message of the
moment when it was asked; a key that is written again in between loses its old message before it was read, and its new
one lies behind the end: it would be in neither. So a stream whose messages replace each other is read on, from the
snapshot's end to the stream's, and what is found there belongs to the snapshot.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError

from pyoco_server.errors import CommandFailed, StoreUnavailable
from pyoco_server.store.nats.connection import Connection

_CHUNK = 128 * 1024
_WINDOW = 4 * 1024 * 1024
"""What NATS may have sent and we not acknowledged; it bounds our memory."""
_ANSWER_SEC = 120.0
"""An older NATS checks every message before it answers."""
_CHUNK_SEC = 30.0
_RESTORED_SEC = 600.0
"""After its last chunk NATS may have to build the stream's index."""
_HEARD_SEC, _AGAIN_SEC = 4.0, 0.05
"""NATS gives a restore up after five seconds without a piece."""
_EXISTS = 10130
_HINTS = {
    10005: "Lower PYOCO_NATS_REPLICAS.",
    10074: "This NATS is no cluster: set PYOCO_NATS_REPLICAS=1.",
    10047: "Give NATS's disk more room, or raise its max_file_store.",
}


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
    with connection.errors(what, missing=True):
        try:  # in a cluster only the stream's leader answers for a snapshot, and one that is missing has none
            await connection.js.stream_info(stream)
        except NotFoundError:
            return None
    client = connection.client
    inbox = client.new_inbox()
    wish = {"deliver_subject": inbox, "chunk_size": _CHUNK, "window_size": _WINDOW, "jsck": True}
    with connection.errors(what):
        subscription = await client.subscribe(inbox)
        try:
            answer = await _ask(connection, f"$JS.API.STREAM.SNAPSHOT.{stream}", wish, what, _ANSWER_SEC)
            _refuse(answer, what)
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
    answer = await _ask(connection, f"$JS.API.STREAM.RESTORE.{stream}", asked, what, _CHUNK_SEC)
    if (answer.get("error") or {}).get("err_code") == _EXISTS:
        return False
    _refuse(answer, what)
    subject, largest = answer["deliver_subject"], min(_CHUNK, connection.max_payload)
    with connection.errors(what):
        for chunk in chunks:
            for at in range(0, len(chunk), largest):
                said = await _hand_over(connection, subject, chunk[at : at + largest], _CHUNK_SEC)
                if said.data:
                    _refuse(json.loads(said.data), what)
        said = await _hand_over(connection, subject, b"", _RESTORED_SEC)
    _refuse(json.loads(said.data), what)
    return True


async def _hand_over(connection: Connection, subject: str, piece: bytes, timeout: float) -> Msg:
    """Send a piece. In a cluster our server may hear a moment late that another one waits for it."""
    deadline = time.monotonic() + _HEARD_SEC
    while True:
        try:
            return await connection.client.request(subject, piece, timeout=timeout)
        except NoRespondersError:  # nobody got it, so it may be sent again
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_AGAIN_SEC)


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
    _refuse(await _ask(connection, f"$JS.API.STREAM.CREATE.{config['name']}", config, what, _CHUNK_SEC), what)


async def configure(connection: Connection, config: dict[str, Any]) -> None:
    """Change a stream's configuration; what the client's own types do not know stays.

    Raises:
        CommandFailed: NATS refuses it.
        StoreUnavailable: NATS went away.
    """
    stream, what = config["name"], f"changing {config['name']}"
    _refuse(await _ask(connection, f"$JS.API.STREAM.UPDATE.{stream}", config, what, _CHUNK_SEC), what)


async def _ask(connection: Connection, subject: str, wish: dict[str, Any], what: str, timeout: float) -> dict[str, Any]:
    """Send a request of JetStream's; its answer, which may be an error.

    Raises:
        RightMissing: our user may not ask for it.
        StoreUnavailable: there is none.
    """
    with connection.errors(what):
        asking = connection.client.request(subject, json.dumps(wish).encode(), timeout=timeout)
        answer = await connection.if_allowed(subject, asking)
    return dict(json.loads(answer.data))


def _refuse(said: dict[str, Any], what: str) -> None:
    """Raise what NATS refuses.

    Raises:
        CommandFailed: it does.
    """
    error = said.get("error")
    if error:
        hint = _HINTS.get(error.get("err_code"), "")
        raise CommandFailed(f"{what}: NATS answered {error.get('description') or error}", hint=hint)
