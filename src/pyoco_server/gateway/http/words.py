"""Parameters that are one of a few words: taken in any case, refused with the right ones."""

from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from pyoco_server.errors import InvalidInput
from pyoco_server.model.audit import AuditAction, AuditOutcome
from pyoco_server.model.deadletter import DeadLetterReason
from pyoco_server.model.run import RunStatus
from pyoco_server.model.runlog import LogStream
from pyoco_server.model.text.languages import Language
from pyoco_server.model.wheels.event import WheelAction
from pyoco_server.model.worker import WorkerState

_MOST_STATUSES = 10
_SHOWN = 80
STATUSES = (*(status.value for status in RunStatus), "PENDING_APPROVAL")
"""What a run's status may be; the last one is that of a bundle's."""
_INCLUDES = ("records", "task_records", "full", "all")


def known_word(given: str, words: Iterable[str]) -> str | None:
    """Return the word that was meant, in whatever case; ``None`` if it is none of them."""
    meant = given.strip().casefold().replace("-", "_")
    return next((word for word in words if word.casefold() == meant), None)


def one_of(words: Iterable[str] | type[Enum], *, blank: str | None = None) -> BeforeValidator:
    """Return what makes a parameter out of a word.

    Args:
        words: Those that there are.
        blank: What a blank one means.
    """
    names = [str(word.value) if isinstance(word, Enum) else str(word) for word in words]

    def find(given: Any) -> Any:
        if not isinstance(given, str):
            return given
        if not given.strip():
            return blank
        word = known_word(given, names)
        if word is None:
            raise PydanticCustomError(
                "unknown_word", "is {given}; it is one of: {known}",
                {"given": repr(given[:_SHOWN]), "known": ", ".join(names)},
            )  # fmt: skip
        return word

    return BeforeValidator(find)


def several_of(given: str, words: Iterable[str], name: str) -> list[str]:
    """Read a comma list of words.

    Raises:
        InvalidInput: one of them is none; the message names those that there are.
    """
    names = list(words)
    found = []
    for part in filter(str.strip, given.split(",")):
        word = known_word(part, names)
        if word is None:
            raise InvalidInput(
                f"{name} is {part.strip()[:_SHOWN]!r}; it is one of: {', '.join(names)}",
                hint=f"Write it such as: ?{name}={names[-1]}",
            )
        found.append(word)
    return list(dict.fromkeys(found))


def read_statuses(given: str | None) -> tuple[str, ...]:
    """Read the statuses of a filter, comma separated.

    Raises:
        InvalidInput: one of them is none.
    """
    if given is not None and given.count(",") > _MOST_STATUSES:
        raise InvalidInput(
            f"status: {given.count(',') + 1} are too many", hint="Name each status once, such as: FAILED,CANCELLED"
        )
    return tuple(several_of(given or "", STATUSES, "status"))


def read_include(include: list[str]) -> set[str]:
    """Read what an answer shall hold beside the rest.

    Raises:
        InvalidInput: a word that says nothing here.
    """
    return {word for item in include for word in several_of(item, _INCLUDES, "include")}


Scope = Annotated[Literal["active", "all"], one_of(("active", "all"), blank="active")]
State = Annotated[WorkerState | None, one_of(WorkerState)]
Reason = Annotated[DeadLetterReason | None, one_of(DeadLetterReason)]
Action = Annotated[AuditAction | None, one_of(AuditAction)]
Outcome = Annotated[AuditOutcome | None, one_of(AuditOutcome)]
WheelDeed = Annotated[WheelAction | None, one_of(WheelAction)]
Stream = Annotated[LogStream | None, one_of(LogStream)]
Lang = Annotated[Language | None, one_of(("en", "ja"))]
Include = Annotated[list[str], Query()]
