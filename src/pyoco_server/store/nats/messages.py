"""Storing a message and reading one, over the seconds in which a cluster of NATS servers has no leader.

After the death of a leader the others choose a new one within 4 to 9 s. Until then a write is refused at once and has
certainly not happened, and a read is not answered at all: both may be tried again.
"""

import asyncio
import time

from nats.js import api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from pyoco_server.errors import StoreRefused, StoreUnavailable
from pyoco_server.store.nats import deadline
from pyoco_server.store.nats.connection import REQUEST_TIMEOUT, SHORT_TRY, Connection

STREAM_NOT_FOUND = 10059
_ELECTION_SEC = 8.0
"""How long one call waits for a leader; a request that makes several has a deadline for all of them."""
_ASK_AGAIN = 0.2
_MSG_ID = api.Header.MSG_ID.value
_IN_PROCESS = 10158
"""The same message was sent before and is still on its way to the replicas."""


async def publish(
    connection: Connection,
    subject: str,
    payload: bytes,
    headers: dict[str, str] | None = None,
    *,
    what: str,
    patient: bool = False,
) -> int:
    """Store a message; its sequence is the answer.

    Args:
        connection: The connection.
        subject: Where to.
        payload: The message.
        headers: Its headers.
        what: What is being done, for the message of an error.
        patient: Whether to wait for a leader. A message with an id is also sent again when it was not acknowledged,
            for the server drops a second one.

    Raises:
        StoreUnavailable: no acknowledgement; the message may be stored all the same.
        RevisionConflict: the expected revision was not the last one.
    """
    began = time.monotonic()
    repeatable = _MSG_ID in (headers or {})
    while True:
        if patient:
            await connection.cluster.wait_for_another()
        try:
            with connection.errors(what):
                longest = deadline.for_try(SHORT_TRY if repeatable else REQUEST_TIMEOUT)
                ack = await connection.js.publish(subject, payload, longest, headers=headers)
            connection.cluster.stored_at = time.monotonic()
            return int(ack.seq)
        except StoreUnavailable as error:
            passing = patient and _is_passing(error.__cause__, repeatable)
            if isinstance(error, StoreRefused) or not (passing and _may_wait(connection, began)):
                raise
        await asyncio.sleep(_ASK_AGAIN)


async def read(
    connection: Connection,
    stream: str,
    *,
    what: str,
    seq: int | None = None,
    subject: str | None = None,
    late: bool = False,
    patient: bool = False,
) -> api.RawStreamMsg | None:
    """Read a message as the stream's leader knows it; ``None`` if there is none.

    A stream that takes no direct reads is read by JetStream's API.

    Args:
        connection: The connection.
        stream: The stream.
        what: What is being done, for the message of an error.
        seq: Its sequence; else the last one of the subject.
        subject: The subject.
        late: Ask any replica: it answers also while there is no leader, and may be a little behind.
        patient: Whether to wait for a leader.

    Raises:
        StoreUnavailable: NATS is away.
    """
    quick = late or connection.cluster.has_one_copy(stream)
    direct, patient = quick and connection.direct_reads.may_be_asked(stream), patient and not quick
    began = time.monotonic()
    while True:
        if patient:
            await connection.cluster.wait_for_another()
        try:
            with connection.errors(what, missing=True):
                js = connection.js_of_short_tries if patient else connection.js
                return await js.get_msg(stream, seq, subject, direct=direct)
        except NotFoundError as missing:
            if quick and missing.err_code == STREAM_NOT_FOUND:
                raise StoreUnavailable(f"{what}: there is no such stream") from missing
            return None
        except StoreUnavailable as error:
            if direct and connection.direct_reads.failed(stream, error):
                direct = False
                continue
            if isinstance(error, StoreRefused) or not (patient and _may_wait(connection, began)):
                raise
        await asyncio.sleep(_ASK_AGAIN)


def _is_passing(cause: BaseException | None, repeatable: bool) -> bool:
    """Tell whether a write may work soon, and may be tried again."""
    if isinstance(cause, APIError):
        return cause.err_code == _IN_PROCESS
    return repeatable or isinstance(cause, NoStreamResponseError)


def _may_wait(connection: Connection, began: float) -> bool:
    """Tell whether there may be a leader soon; where there has been none for long, nobody is kept waiting."""
    waited = max(time.monotonic() - began, connection.cluster.silent_for)
    return waited < _ELECTION_SEC and connection.is_up and not deadline.is_over()
