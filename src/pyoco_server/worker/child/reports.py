"""What a child tells its worker, checked where it comes in: user code can write to the child's socket too.

A message that does not fit is refused as a whole. So what is taken has the right types, is finite where it is reckoned
with, and nests no deeper than what can be read back from a record.
"""

import asyncio
from typing import Annotated, Any, Literal, NamedTuple

import anyio
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from typing_extensions import Required, TypedDict

from pyoco_server.model.run import EndReason
from pyoco_server.worker.child.protocol import LENGTH, Message

_REST_SEC = 30.0
_MARKS_OF_CUTS = (b'"preview"', b"characters cut")
Number = Annotated[float, Field(allow_inf_nan=False)]
Place = dict[str, str | int | None]
_ONLY_THESE = ConfigDict(extra="forbid", strict=True)


class Nonsense(ValueError):
    """What came is no message of a child's."""


class Received(NamedTuple):
    """A message.

    Args:
        message: What it tells.
        size: Its length in bytes.
        may_be_cut: Whether it may hold less of a value or a text than there was.
    """

    message: Message
    size: int
    may_be_cut: bool = True


class Failure(TypedDict, total=False):
    """What is told of an exception."""

    __pydantic_config__ = _ONLY_THESE  # type: ignore[misc]
    error: str | None
    exception: Place | None
    traceback: str | None
    origin: Place | None


_Tries = TypedDict("_Tries", {"try": int, "tries": int}, total=False)  # "try" is a word of Python's own


class TaskFields(Failure, _Tries, total=False):
    """What has changed in the record of a task."""

    __pydantic_config__ = _ONLY_THESE  # type: ignore[misc]
    state: Required[Literal["RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]]
    started_at: Number | None
    ended_at: Number | None
    duration_ms: Number | None
    retry_at: Number | None
    last_error: str | None
    inputs_note: str | None
    inputs: dict[str, JsonValue]
    output: JsonValue
    artifacts: JsonValue


class _OfRun(TypedDict):
    __pydantic_config__ = _ONLY_THESE  # type: ignore[misc]
    run_id: str
    attempt: int


class Begun(_OfRun):
    """The child has begun with the run; whatever happens from here on is the run's own."""

    type: Literal["begun"]


class Planned(_OfRun):
    """The tasks that the flow has, and how many seconds a try of each may take."""

    type: Literal["planned"]
    tasks: list[str]
    timeouts: dict[str, Annotated[float, Field(gt=0)]]


class TaskNews(_OfRun):
    """A task has started, ended, or is tried again."""

    type: Literal["task"]
    name: str
    fields: TaskFields


class Finished(_OfRun, total=False):
    """The run's end, and the last word on it."""

    type: Required[Literal["finished"]]
    outcome: Required[Literal["completed", "cancelled", "failed"]]
    reusable: Required[bool]
    reason: Annotated[EndReason, Field(strict=False)]
    error: str
    task: str | None
    raised_in: str | None
    details: Failure


class _OfNoRun(TypedDict, total=False):
    __pydantic_config__ = _ONLY_THESE  # type: ignore[misc]
    run_id: str | None
    attempt: int | None


class Fresh(_OfNoRun):
    """Whether code that a kept process has imported lies changed on the disk."""

    type: Literal["fresh"]
    changed: bool


class Tried(_OfNoRun):
    """Why the flow resolver does not load; ``None`` if it does."""

    type: Literal["tried"]
    error: str | None
    trace: str
    """The user's own lines that led there; empty where there are none."""


_REPORT: TypeAdapter[Any] = TypeAdapter(
    Annotated[Begun | Planned | TaskNews | Finished | Fresh | Tried, Field(discriminator="type")]
)


async def read_packet(reader: asyncio.StreamReader, longest: int, rest_sec: float = _REST_SEC) -> bytes | None:
    """Read the bytes of one message; ``None`` when the other side is gone.

    Args:
        reader: Where they come from.
        longest: Bytes that a message may have.
        rest_sec: Seconds within which a message that has begun must be there.

    Raises:
        Nonsense: one with more is announced, or one does not end.
    """
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if length > longest:
            raise Nonsense(f"a message of {length} bytes; {longest} are taken")
        with anyio.fail_after(rest_sec):
            return await reader.readexactly(length)
    except TimeoutError:
        raise Nonsense(f"a message of {length} bytes that did not end within {rest_sec:g} s") from None
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def read_report(body: bytes) -> Received:
    """Read a message of a child's.

    Args:
        body: Its bytes, without the length in front.

    Raises:
        Nonsense: it is none.
    """
    try:
        return Received(_REPORT.validate_json(body), len(body), any(mark in body for mark in _MARKS_OF_CUTS))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:100]
        raise Nonsense(f"{place}: {first['msg']}" if place else first["msg"]) from None
