"""How two answers differ: what the first one has and the second one lacks, or has otherwise. More is no difference."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_TIME = re.compile(r"(_at|_time|^ts|^timestamp|^duration_ms|^modified)$")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SORTED_BY = ("run_id", "worker_id")
_RANDOM = {"instance_id", "event_id", "nuid", "next_cursor"}
_ISO_TIME = {"mtime"}


def parsed(content_type: str, text: str) -> Any:
    """Return what an answer says: JSON as it is, events and metrics as data, anything else as text."""
    kind = content_type.partition(";")[0]
    if kind == "application/json":
        return json.loads(text)
    if kind == "text/event-stream":
        return list(events(text))
    if kind == "text/plain":
        return samples(text)
    return text


def events(text: str) -> Iterator[dict[str, Any]]:
    """Return the events of a stream, without heartbeats: when they come is for each side to decide."""
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields and fields.get("event") != "heartbeat":
            yield {"event": fields.get("event"), "data": json.loads(fields["data"])}


def samples(text: str) -> dict[str, float]:
    """Return the samples of Prometheus's text that are not 0."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            if float(value):
                found[name] = float(value)
    return found


def neutral(value: Any, names: Mapping[str, str], key: str = "") -> Any:
    """Return a value without what differs by chance: times, random ids, ports."""
    if isinstance(value, dict):
        return {names.get(name, name): neutral(item, names, name) for name, item in value.items()}
    if isinstance(value, list):
        return sorted((neutral(item, names, key) for item in value), key=_place)
    if value and (key in _RANDOM or (key in _ISO_TIME and isinstance(value, str))):
        return f"<{key}>"
    if isinstance(value, float | int) and not isinstance(value, bool):
        return "<time>" if _TIME.search(key) else float(value)
    if isinstance(value, str):
        for random, name in names.items():
            value = value.replace(random, name)
        return _UUID.sub("<uuid>", value)
    return value


def _place(item: Any) -> str:
    """Return what lists of runs and workers are sorted by here; other lists stay as they are."""
    return next((str(item[name]) for name in _SORTED_BY if name in item), "") if isinstance(item, dict) else ""


def error_without_words(body: Any) -> Any:
    """Return an error's answer without its sentences: each side has its own."""
    if not isinstance(body, dict) or "detail" not in body:
        return body
    detail = body["detail"]
    if isinstance(detail, str):
        return {"detail": "<sentence>"}
    return {"detail": [{name: item.get(name) for name in ("type", "loc", "ctx") if name in item} for item in detail]}


def differences(theirs: Any, ours: Any, place: str = "") -> Iterator[str]:
    """Return one line for each difference, which begins with its place."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in theirs:
            inside = f"{place}.{name}" if place else str(name)
            if name not in ours:
                yield f"{inside}: missing (theirs {_short(theirs[name])})"
            else:
                yield from differences(theirs[name], ours[name], inside)
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            yield f"{place}: {len(theirs)} there, {len(ours)} here (theirs {_short(theirs)}, ours {_short(ours)})"
        for number, (left, right) in enumerate(zip(theirs, ours, strict=False)):
            yield from differences(left, right, f"{place}[{_place(left) or number}]")
    elif theirs != ours:
        yield f"{place}: theirs {_short(theirs)}, ours {_short(ours)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"
