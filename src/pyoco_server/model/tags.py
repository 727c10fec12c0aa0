"""Tags: the routing key of a run, and the set that a worker serves."""

import re

from pyoco_server.errors import InvalidInput

_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WORKER_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.=-]{0,127}")


def is_tag(text: str) -> bool:
    """Tell whether a text may be a tag: it becomes part of subjects and of consumers' names."""
    return bool(_TAG.fullmatch(text))


def check_tag(tag: str) -> str:
    """Return the tag if it may become part of a subject.

    Raises:
        InvalidInput: it holds anything but letters, digits, ``_`` and ``-``, or is longer than 64.
    """
    if not is_tag(tag):
        raise InvalidInput(
            f"invalid tag {tag[:80]!r}",
            hint="A tag has 1 to 64 letters, digits, '_' or '-', and no dot: cpu, gpu, team_a-2.",
        )
    return tag


def parse_tags(text: str) -> list[str]:
    """Split a comma list such as ``cpu,gpu``, keeping the order and each tag once."""
    tags = [part.strip() for part in text.split(",") if part.strip()]
    if not tags:
        raise InvalidInput(f"no tag in {text!r}", hint="Give at least one, such as: --tags cpu,default")
    return list(dict.fromkeys(check_tag(tag) for tag in tags))


def check_worker_id(worker_id: str) -> str:
    """Return the worker id if it may become a key.

    Raises:
        InvalidInput: a character that a key cannot hold, or longer than 128.
    """
    if not _WORKER_ID.fullmatch(worker_id) or worker_id.endswith(".") or ".." in worker_id:
        raise InvalidInput(
            f"invalid worker id {worker_id[:140]!r}",
            hint="Use 1 to 128 letters, digits, '_', '-', '.' (single, between others) or '=', such as: cpu-1",
        )
    return worker_id
