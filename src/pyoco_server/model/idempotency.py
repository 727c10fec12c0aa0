"""Idempotency keys: the same key of the same tenant names the same run."""

import hashlib
import json
import uuid
from typing import Any

from pyoco_server.errors import InvalidInput
from pyoco_server.model.text.terminal import is_plain

MAX_KEY = 255
"""Longest key, in characters."""
DIGESTED = ("flow_name", "params", "tag", "tags", "timeout_sec", "max_attempts", "workflow_yaml_sha256")
"""What of a run decides whether two requests are the same."""
_NAMESPACE = uuid.UUID("6f2cfb0a-6d0f-5f0e-9a53-0c1f6f6f3a51")


def check_key(key: str) -> str:
    """Return the key without the spaces around it, which an HTTP header could not carry.

    Raises:
        InvalidInput: it is blank, longer than 255 characters, or has control characters. All else is text.
    """
    key = key.strip()
    wrong = "is blank" if not key else f"has more than {MAX_KEY} characters" if len(key) > MAX_KEY else ""
    if wrong or not is_plain(key):
        raise InvalidInput(
            f"idempotency_key {wrong or 'has control characters'}",
            hint="Make one key per run that you want, such as a UUID, and repeat it only with the same request.",
        )
    return key


def run_id_of(tenant_id: str | None, key: str) -> str:
    """Give the run that a tenant's key names."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps([tenant_id, key])))


def digest(**fields: Any) -> str:
    """Give a hash of what was asked for, equal for equal requests and no others.

    Args:
        fields: Everything that decides what is run, and where; plain JSON data.
    """
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
