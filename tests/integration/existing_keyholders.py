"""Keys as the existing system makes them."""

import base64
import hashlib
import json
import secrets
import time
from typing import Any

from pyoco_server.model.apikey import ApiKey
from pyoco_server.store.keys import KeyStore


def made_there(key: ApiKey, pepper: str = "", *, iterations: int = 1000, **changes: Any) -> bytes:
    """Return what the existing system keeps of a key."""
    salt = secrets.token_bytes(16)
    made = hashlib.pbkdf2_hmac("sha256", (key.secret + pepper).encode(), salt, iterations, dklen=32)
    record = {
        "key_id": key.key_id, "tenant_id": "demo", "kdf": "pbkdf2_hmac_sha256", "iterations": iterations,
        "salt_b64": _text(salt), "hash_b64": _text(made), "created_at": time.time(), "revoked_at": None, **changes,
    }  # fmt: skip
    return json.dumps(record).encode()


async def make_there(keys: KeyStore, pepper: str = "", **changes: Any) -> ApiKey:
    """Make a key there."""
    key = ApiKey.new()
    await keys._bucket.put(f"api_keys.{key.key_id}", made_there(key, pepper, **changes))
    return key


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
