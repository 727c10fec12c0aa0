"""The wheels in a store of the existing system."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from packaging.tags import Tag

from pyoco_server.errors import InvalidInput
from pyoco_server.model.findings.finding import Finding, FindingCode, info, warning
from pyoco_server.model.tags import is_tag
from pyoco_server.model.wheels.file_name import parse_wheel_name

_TAGS = "x-pyoco-wheel-tags"
_NAMED = 10


def judge_wheels(metas: Iterable[bytes], *, supported: Sequence[Tag], python: str) -> list[Finding]:
    """Return what is to be told of wheels.

    Args:
        metas: What the object store knows of each object.
        supported: What this machine's interpreter can install.
        python: The interpreter, such as ``3.11.4``.
    """
    there = [meta for meta in map(_meta, metas) if meta.get("name") and not meta.get("deleted")]
    if not there:
        return []
    unfit: dict[str, list[str]] = {}
    elsewhere: list[str] = []
    for meta in there:
        name = str(meta["name"])
        if reason := _trouble(name, meta):
            unfit.setdefault(reason, []).append(name[:200])
        elif "@" not in name and parse_wheel_name(name).tags.isdisjoint(supported):
            elsewhere.append(name)
    found = [info(FindingCode.WHEELS_HELD, wheels=len(there))]
    for reason, names in unfit.items():
        found.append(warning(FindingCode.WHEELS_UNFIT, wheels=names[:_NAMED], reason=reason))
    if elsewhere:
        found.append(info(FindingCode.WHEELS_ELSEWHERE, wheels=elsewhere[:_NAMED], python=python))
    return found


def _trouble(name: str, meta: dict[str, Any]) -> str | None:
    """Say why a wheel is never installed by our workers; ``None`` if it may be."""
    if not str(meta.get("digest") or "").upper().startswith("SHA-256="):
        return "its digest is no SHA-256, so it is not even listed"
    if "@" in name:  # a tenant's, which only ours has
        return None
    try:
        parse_wheel_name(name)
    except InvalidInput:
        return "its name is not a wheel's"
    bad = [tag for tag in _tags(meta) if not is_tag(tag)]
    return f"no worker can serve the tag {bad[0][:80]!r}" if bad and len(bad) == len(_tags(meta)) else None


def _tags(meta: dict[str, Any]) -> list[str]:
    headers = meta.get("headers")
    given = headers.get(_TAGS) if isinstance(headers, dict) else None
    text = ",".join(map(str, given)) if isinstance(given, list) else str(given or "")
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def _meta(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
