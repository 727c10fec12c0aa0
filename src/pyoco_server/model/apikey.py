"""API keys: what they look like, what is kept of one, and how it is known again.

Of a key only an HMAC-SHA256 is kept. Its secret is 256 random bits, which nobody finds by trying, so a slow hash
(PBKDF2, scrypt) would make each request slow and no key safer. Without a pepper the HMAC's key is a fixed word: then it
is a plain hash, and that is enough against who reads the bucket. A pepper is against who can *write* it: tenant, role
and expiry are under the HMAC too, so without the pepper nobody makes a record that the gateway takes, or changes one.
Revoking takes the HMAC out of the record: whatever is written around it later, the key does not come back.
"""

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass, field
from enum import Enum

from pydantic import BaseModel, ConfigDict
from typing_extensions import Self

from pyoco_server.model.access import Role

_KEY = re.compile(r"pyoco_([0-9a-f]{24})\.([A-Za-z0-9_-]{43})")
_KEY_ID = re.compile(r"[0-9a-f]{24}")
_NO_PEPPER = b"pyoco-server api keys, no pepper"
_SCHEME = "hmac-sha256/1"
_ROLES = frozenset(role.value for role in Role)


def is_key_id(text: str) -> bool:
    """Tell whether a text may be the id of a key."""
    return bool(_KEY_ID.fullmatch(text))


@dataclass(frozen=True)
class ApiKey:
    """A key as its owner holds it: ``pyoco_<key_id>.<secret>``."""

    key_id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Make one up."""
        return cls(secrets.token_hex(12), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a key; ``None`` if the text is none."""
        found = _KEY.fullmatch(text)
        return cls(*found.groups()) if found else None

    def reveal(self) -> str:
        """Give the whole key, for its owner's eyes."""
        return f"pyoco_{self.key_id}.{self.secret}"


class ApiKeyRecord(BaseModel):
    """What is kept of a key. Fields of other versions stay; what cannot be understood admits nobody."""

    model_config = ConfigDict(frozen=True, extra="allow")

    key_id: str
    tenant_id: str
    role: str = Role.MEMBER.value
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    scheme: str = ""
    digest: str = ""
    pepper_id: str | None = None
    """Tells which pepper it was made with; ``None`` for none."""

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read a stored record.

        Raises:
            ValueError: it is none.
        """
        return cls.model_validate_json(raw)

    def to_json(self) -> bytes:
        """Write the stored form."""
        return self.model_dump_json().encode()

    def revoked(self, now: float) -> Self:
        """Give the record of the same key, revoked at ``now`` (unix seconds) if it was not before."""
        return self if self.revoked_at is not None else self.model_copy(update={"revoked_at": now, "digest": ""})

    def ended(self, now: float) -> "Refusal | None":
        """Tell why the key is not good any more at ``now`` (unix seconds); ``None`` while it is."""
        if self.revoked_at is not None:
            return Refusal.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return Refusal.EXPIRED
        return None


class Refusal(str, Enum):
    """Why a key is refused: for the server's log, never for the caller."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - a reason
    OTHER_PEPPER = "other_pepper"
    UNKNOWN_FORM = "unknown_form"
    REVOKED = "revoked"
    EXPIRED = "expired"
    EXISTING_WRONG = "existing_system_wrong"
    """Of the existing system, which does not tell a wrong secret from another pepper."""
    EXISTING_FORM = "existing_system_form"
    """Of the existing system, and its record says nothing that can be checked."""


class Pepper:
    """Makes and compares the HMACs.

    Args:
        secret: The pepper; ``None`` for none.
    """

    def __init__(self, secret: str | None) -> None:
        self._key = secret.encode() if secret else _NO_PEPPER
        self._behind = secret or ""
        self.id = hmac.new(self._key, b"which pepper", hashlib.sha256).hexdigest()[:8] if secret else None
        self._nobody = ApiKeyRecord(key_id="", tenant_id="", digest="0" * 64)

    def seal(
        self, key: ApiKey, *, tenant_id: str, role: Role, created_at: float, expires_at: float | None
    ) -> ApiKeyRecord:
        """Make the record of a key."""
        record = ApiKeyRecord(
            key_id=key.key_id, tenant_id=tenant_id, role=role.value, created_at=created_at, expires_at=expires_at,
            scheme=_SCHEME, pepper_id=self.id,
        )  # fmt: skip
        return record.model_copy(update={"digest": self._digest(record, key)})

    def refusal(self, key: ApiKey | None, record: ApiKeyRecord | None, now: float) -> Refusal | None:
        """Tell why a key is refused; ``None`` for a good one. The work is the same whatever is wrong.

        Args:
            key: What the caller sent; ``None`` if that was no key.
            record: What is kept under the key's id.
            now: Unix seconds.
        """
        kept = record or self._nobody
        same = hmac.compare_digest(self._digest(kept, key or ApiKey("", "")).encode(), kept.digest.encode())
        if key is None:
            return Refusal.MALFORMED
        if record is None:
            return Refusal.UNKNOWN
        ended = record.ended(now)
        if ended:
            return ended
        if record.scheme != _SCHEME or record.role not in _ROLES:
            return Refusal.UNKNOWN_FORM
        if same and record.key_id == key.key_id:
            return None
        return Refusal.WRONG_SECRET if record.pepper_id == self.id else Refusal.OTHER_PEPPER

    def behind(self, key: ApiKey) -> bytes:
        """Return what the existing system makes its hash of: the secret with the pepper behind it."""
        return (key.secret + self._behind).encode()

    def _digest(self, record: ApiKeyRecord, key: ApiKey) -> str:
        sealed = [key.key_id, key.secret, record.tenant_id, record.role, record.expires_at]
        return hmac.new(self._key, json.dumps(sealed).encode(), hashlib.sha256).hexdigest()
