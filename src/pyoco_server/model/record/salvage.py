"""What can be read of a record that cannot be read: another program's, a damaged one, one that nests too deeply.

A record is read strictly, or not at all. Where that fails, its members are read one by one, and those that are as a
record has them are kept. Nothing behind the first damage is believed: where a quote is missing, what a user once passed
as a text may look like a member.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # as the standard library's own decoder uses it
from typing import Any

import pydantic_core
from pydantic import ValidationError

from pyoco_server.model.run import RunRecord
from pyoco_server.model.text.clean import clean_json, clean_text

_LEVELS = 4
"""The record, its task records, one of them, one of its fields."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_PLAIN = re.compile(r"[^\s,\[\]{}\":]+")
_SPACE = re.compile(r"[ \t\r\n]*")
_MOST_TOKENS = 200_000
_PREVIEW = 200
_WHY = 300
_STATUS = 100
_PAIRS = {"}": "{", "]": "["}
_TOO_DEEP = "it nests too deeply, or holds a number with too many digits"


@dataclass(frozen=True)
class Salvage:
    """A record that stands for one that cannot be read.

    Attributes:
        record: With what could be read; every other field is as in a new record.
        why: What is wrong with the stored form.
        known: Names of the fields that could be read.
        intact: Whether the stored form is an object of JSON, so that what it says is what was written.
        status: The status that it names, which may be none of ours.
    """

    record: RunRecord
    why: str
    known: frozenset[str]
    intact: bool
    status: str | None = None

    @property
    def has_ended(self) -> bool:
        """Return whether what could be read says that the run has ended."""
        return "status" in self.known and self.record.status.is_terminal


class _Damaged(Exception):
    """Here the text stops being JSON; nothing behind it is believed."""


def trouble(raw: bytes) -> str | None:
    """Say why a stored form cannot be read as a record; ``None`` if it can."""
    try:
        RunRecord.from_json(raw)
    except ValidationError as error:
        return _describe(error)
    return None


def salvage(run_id: str, raw: bytes) -> Salvage | None:
    """Read what can be read of a record that cannot be read as a whole; ``None`` if it can.

    Args:
        run_id: The run, whatever the record calls itself.
        raw: The stored form.
    """
    why = trouble(raw)
    if why is None:
        return None
    fields = parse(raw)
    if fields is not None:
        return _stand_in(run_id, fields, why, intact=True)
    return _stand_in(run_id, _top_level(raw.decode("utf-8", "replace")), why, intact=False)


def mend(record: RunRecord) -> RunRecord:
    """Return a record whose fields are what they should be, without those that are not."""
    fields = {name: value for name, value in record if name in record.model_fields_set}
    return _stand_in(record.run_id, fields, "", intact=True).record


def parse(raw: bytes) -> dict[str, Any] | None:
    """Read a JSON object, also one with lone surrogates or numbers that JSON does not know; ``None`` if it is none."""
    try:
        value = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError:
        try:
            value = clean_json(json.loads(raw))
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return clean_text(f"{where}: {first['msg']}" if where else first["msg"], _WHY)


def _stand_in(run_id: str, fields: dict[str, Any], why: str, *, intact: bool) -> Salvage:
    kept = {**fields, "run_id": run_id}
    status = fields.get("status")
    named = clean_text(status, _STATUS) if isinstance(status, str) else None
    while True:
        try:
            record = RunRecord.model_validate({"flow_name": "", **kept})
        except ValidationError as error:
            _drop(kept, {item["loc"] for item in error.errors(include_url=False, include_input=False)})
        else:
            return Salvage(record, why, frozenset(kept), intact, named)


def _drop(fields: dict[str, Any], places: set[tuple[Any, ...]]) -> None:
    """Drop fields, or of an object's members those that are not as they should be."""
    for name in {place[0] for place in places}:
        value = fields.get(name)
        bad = {place[1] for place in places if place[0] == name and len(place) > 1}
        if bad and isinstance(value, dict) and bad <= value.keys():
            fields[name] = {key: item for key, item in value.items() if key not in bad}
        else:
            fields.pop(name, None)


def _top_level(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with contextlib.suppress(_Damaged):  # what came before it stands
        _read_members(text, _LEVELS, found)
    return found


def _read_members(text: str, levels: int, into: dict[str, Any]) -> None:
    for name, value in _members(text):
        into[name] = _read(value, levels - 1)


def _read(text: str, levels: int) -> Any:
    """Read a value; one that nests too deeply member by member, and where that fails too, its beginning stands for it.

    Raises:
        _Damaged: it is no JSON.
    """
    try:
        return pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError:
        pass
    try:
        return clean_json(json.loads(text))
    except json.JSONDecodeError as error:
        raise _Damaged from error
    except (ValueError, RecursionError):
        if levels and text.startswith("{"):
            found: dict[str, Any] = {}
            _read_members(text, levels, found)
            return found
    preview = clean_text(text[:_PREVIEW], _PREVIEW)
    return {"truncated": True, "size_bytes": len(text.encode()), "preview": preview, "why": _TOO_DEEP}


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Yield an object's members, each with the text of its value, without looking into it.

    Raises:
        _Damaged: from here on it is no JSON.
    """
    at = _past_space(text, 0)
    if text[at : at + 1] != "{":
        raise _Damaged
    at = _past_space(text, at + 1)
    while text[at : at + 1] == '"':
        try:
            name, at = scanstring(text, at + 1, True)
        except ValueError:
            raise _Damaged from None
        at = _past_space(text, at)
        if text[at : at + 1] != ":":
            raise _Damaged
        start = _past_space(text, at + 1)
        end = _end_of_value(text, start)
        at = _past_space(text, end)
        if text[at : at + 1] not in (",", "}"):
            raise _Damaged
        yield name, text[start:end]
        if text[at] == "}":
            return
        at = _past_space(text, at + 1)
    raise _Damaged


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _end_of_value(text: str, start: int) -> int:
    opened: list[str] = []
    if text[start : start + 1] not in ("{", "[", '"'):
        plain = _PLAIN.match(text, start)
        if plain is None:
            raise _Damaged
        return plain.end()
    for count, token in enumerate(_TOKEN.finditer(text, start)):
        sign = token.group()[0]
        if sign in "{[":
            opened.append(sign)
        elif sign in "}]" and (not opened or opened.pop() != _PAIRS[sign]):
            raise _Damaged
        if not opened:
            return token.end()
        if count >= _MOST_TOKENS:
            break
    raise _Damaged
