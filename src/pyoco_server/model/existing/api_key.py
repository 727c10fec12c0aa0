"""API keys that the existing system made: its records, and how a key is known by one.

Of such a key a PBKDF2 hash is kept, which takes a tenth of a second to make. So it is checked once, and what follows it
is a seal: a record of ours beside the other one, which stays as it is for the gateways of the existing system. The seal
counts only while that record does, and names it by its print. So whoever revokes the key there, by its command or by
ours, has revoked both; and without that record a seal opens nothing.

Whatever stands in the record was written by another program: nothing of it is believed but what is in bounds.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import field_validator
from typing_extensions import Self

from pyoco_server.errors import InvalidInput
from pyoco_server.model.access import Role, check_tenant
from pyoco_server.model.apikey import ApiKeyRecord

MADE_BY = "made by the existing system"
PREFIX = "api_keys."
"""What the names of its records in the bucket begin with."""
SEALS = "sealed."
"""And those of our seals of them."""
_KDF = "pbkdf2_hmac_sha256"
_ITERATIONS = 200_000
"""Of a record that names none."""
_MOST_ITERATIONS = 2_000_000
_MOST_SALT = 1024
_HASH_BYTES = 32
_MOST_SHOWN = 40


class UnusableKey(ValueError):
    """A record by which no key can be known; the message says why."""


@dataclass(frozen=True)
class SlowHash:
    """What PBKDF2-HMAC-SHA256 made of a secret, with a pepper behind it."""

    iterations: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def of(self, password: bytes) -> bytes:
        """Make the hash of a password; it takes a while, without holding the interpreter."""
        return hashlib.pbkdf2_hmac("sha256", password, self.salt, self.iterations, dklen=_HASH_BYTES)


class ExistingKey(ApiKeyRecord):
    """A record of the existing system. Its key may what a member may, whatever else stands there."""

    kdf: Any = None
    iterations: Any = None
    salt_b64: Any = None
    hash_b64: Any = None

    @field_validator("created_at", mode="before")
    @classmethod
    def _some_time(cls, value: object) -> object:
        return value or 0.0

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read a stored record.

        Raises:
            ValueError: it is none.
        """
        ours = {"role": Role.MEMBER.value, "expires_at": None, "scheme": "", "digest": "", "pepper_id": None}
        return super().from_json(raw).model_copy(update=ours)

    def revoked(self, now: float) -> Self:
        """Return the record of the same key, revoked at ``now``; its own gateways refuse it too."""
        if self.revoked_at is not None:
            return self
        return self.model_copy(update={"revoked_at": now, "hash_b64": ""})

    def slow_hash(self) -> SlowHash:
        """Return what its key is known by.

        Raises:
            UnusableKey: it is nothing that we can check, or would take too long.
        """
        if (self.kdf or _KDF) != _KDF:
            raise UnusableKey(f"its hash is of the kind {_shown(self.kdf)}, and only {_KDF} is known")
        iterations = _ITERATIONS if self.iterations in (None, 0) else self.iterations
        if type(iterations) is not int or not 1 <= iterations <= _MOST_ITERATIONS:
            raise UnusableKey(f"its hash takes {_shown(iterations)} iterations; 1 to {_MOST_ITERATIONS} are checked")
        salt, digest = _bytes(self.salt_b64, _MOST_SALT), _bytes(self.hash_b64, _HASH_BYTES)
        if salt is None or digest is None or len(digest) != _HASH_BYTES:
            raise UnusableKey("its salt or its hash cannot be read")
        try:
            check_tenant(self.tenant_id)
        except InvalidInput as error:
            raise UnusableKey(error.message) from None
        return SlowHash(iterations, salt, digest)

    def problem(self) -> str | None:
        """Return why no key can be known by it, as a sentence; ``None`` if one can, or need not any more."""
        if self.revoked_at is not None:
            return None
        try:
            self.slow_hash()
        except UnusableKey as error:
            return f"{MADE_BY}: {error}; make a new key, and revoke this one"
        return None

    def print(self) -> str:
        """Return what a seal names it by: with another hash or tenant it is another record."""
        told = [self.key_id, self.tenant_id, self.kdf, self.iterations, self.salt_b64, self.hash_b64]
        return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()


class Seal(ApiKeyRecord):
    """A key of the existing system in our own form, since it was checked."""

    seal_of: str
    """The print of the record that it belongs to."""


def _bytes(text: Any, most: int) -> bytes | None:
    """Return the bytes that a text of base64 without its end means; ``None`` if it means none, or too many."""
    if not isinstance(text, str) or not 0 < len(text) <= most * 2:
        return None
    try:
        found = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if len(found) <= most else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
