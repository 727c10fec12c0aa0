"""Turning direct reads on for a stream that another program made, and that does not take them."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import nats.errors
import structlog
from nats.js import JetStreamContext

from pyoco_server.errors import RightMissing, StoreUnavailable
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct_reads import OFF_HINT

log = structlog.get_logger(__name__)

_ANSWERED_SEC, _AGAIN_SEC = 5.0, 0.05
"""In a cluster each server that keeps the stream hears of the change for itself."""
_TELL_AGAIN_SEC = 3600.0
_FOREIGN_SEC = 2.0
_API = "$JS.API"

_Ask = Callable[[str, bytes], Awaitable[bytes]]
"""Sends a request to a subject and returns the answer."""


async def turn_on(connection: Connection, stream: str) -> bool:
    """Let a stream take direct reads, and wait until it does; return whether that is so.

    Nothing else of its definition is changed, and what the client's own types do not know stays. Two may do it at once.
    Where it cannot be done, that is logged; reads then go by JetStream's API.

    Raises:
        StoreUnavailable: NATS is away.
    """

    async def ask(subject: str, body: bytes) -> bytes:
        what = f"turning direct reads of {stream} on"
        return bytes((await connection.if_allowed(subject, connection.request(subject, body, what=what))).data)

    try:
        problem = await _turn_on(ask, stream)
    except StoreUnavailable as error:  # also without the right to
        if not connection.is_up:
            raise
        problem = error.message
    if problem is None:
        connection.direct_reads.note_on(stream)
        return True
    connection.direct_reads.told.add(stream)
    connection.tell(
        log.warning, "direct reads of a stream are off, and stay so; it is read message by message, which takes longer",
        every_sec=_TELL_AGAIN_SEC, stream=stream, reason=problem, hint=OFF_HINT,
    )  # fmt: skip
    return False


async def turn_on_by(js: JetStreamContext, stream: str) -> None:
    """Do the same for a program that holds a JetStream context of its own."""

    async def ask(subject: str, body: bytes) -> bytes:
        answer = await js._nc.request(subject.replace(_API, js._prefix, 1), body, timeout=_FOREIGN_SEC)
        return bytes(answer.data)

    try:
        problem = await _turn_on(ask, stream)
    except (nats.errors.Error, asyncio.TimeoutError) as error:  # a right that is missing shows as silence
        problem = str(error) or "no answer"
    if problem is not None:
        log.warning("direct reads of a stream are off, and stay so", stream=stream, reason=problem, hint=OFF_HINT)


async def why_unreadable(connection: Connection, stream: str) -> str | None:
    """Return why a stream can be read neither directly nor by JetStream's API; ``None`` if it can.

    Raises:
        StoreUnavailable: NATS is away.
    """
    what = f"reading the stream {stream}"
    problem = ""
    for subject in (f"{_API}.DIRECT.GET.{stream}", f"{_API}.STREAM.MSG.GET.{stream}"):
        asking = connection.request(subject, b'{"seq": 1, "next_by_subj": ">"}', what=what)
        try:
            await connection.if_allowed(subject, asking)
        except StoreUnavailable as error:
            if not connection.is_up:
                raise
            problem = error.message
        else:
            return None
    return problem


async def _turn_on(ask: _Ask, stream: str) -> str | None:
    """Do it; return why it cannot be done, ``None`` if it is."""
    told = json.loads(await ask(f"{_API}.STREAM.INFO.{stream}", b""))
    if "error" in told:
        return _said(told)
    config = told["config"]
    if not config.get("allow_direct"):
        wanted = json.dumps({**config, "allow_direct": True}).encode()
        answer = json.loads(await ask(f"{_API}.STREAM.UPDATE.{stream}", wanted))
        if "error" in answer:
            return _said(answer)
        log.info("direct reads of a stream were off: turned on, and nothing else of it was changed", stream=stream)
    subject = (config.get("subjects") or ["_"])[0].replace("*", "_").replace(">", "_")
    deadline = time.monotonic() + _ANSWERED_SEC
    while not await _answers(ask, f"{_API}.DIRECT.GET.{stream}.{subject}"):
        if time.monotonic() > deadline:
            return "they are on, and nobody answers them"
        await asyncio.sleep(_AGAIN_SEC)
    return None


async def _answers(ask: _Ask, subject: str) -> bool:
    try:
        await ask(subject, b"")
    except RightMissing:
        raise
    except nats.errors.NoRespondersError:
        return False
    except StoreUnavailable as error:
        if isinstance(error.__cause__, nats.errors.NoRespondersError):
            return False
        raise
    return True


def _said(answer: dict[str, dict[str, str]]) -> str:
    return f"NATS answered {answer['error'].get('description') or answer['error']}"
