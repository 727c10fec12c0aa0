"""Who asks, and what that one may see and change."""

import re
from dataclasses import dataclass
from enum import Enum

from pyoco_server.errors import InvalidInput

_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_tenant(text: str) -> str:
    """Return the name of a tenant.

    Raises:
        InvalidInput: it is none.
    """
    if not _TENANT.fullmatch(text):
        raise InvalidInput(
            f"{text[:80]!r} cannot be the name of a tenant",
            hint="Use 1 to 64 letters, digits, hyphens and underscores (no dots), such as demo.",
        )
    return text


class Role(str, Enum):
    """What a key allows; each role may do what the ones before it may."""

    VIEWER = "viewer"
    """Reads."""
    MEMBER = "member"
    """Submits, cancels and reruns runs of its tenant; changes wheels and workers."""
    ADMIN = "admin"
    """Reads the audit trail, and what belongs to no tenant."""
    OPERATOR = "operator"
    """Runs the system: sees what is everybody's, and changes what all tenants share."""

    def allows(self, needed: "Role") -> bool:
        """Tell whether this role may do what ``needed`` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        tenant_id: The tenant of the key; ``None`` where there is no authentication.
        key_id: The key.
        role: What it allows.
    """

    tenant_id: str | None
    key_id: str | None
    role: Role

    @property
    def tenants(self) -> tuple[str | None, ...] | None:
        """Whose things are seen, ``None`` among them for what belongs to no tenant; ``None`` alone: everybody's."""
        if self.tenant_id is None:
            return None
        return (self.tenant_id, None) if self.role is Role.ADMIN else (self.tenant_id,)

    def sees(self, tenant_id: object) -> bool:
        """Tell whether a thing of a tenant may be seen; ``None`` is the tenant of what was made without a key.

        Without authentication everything is seen; with it, what belongs to no tenant is the admins' business.

        Args:
            tenant_id: As it is stored, perhaps by another program.
        """
        return self.tenants is None or tenant_of(tenant_id) in self.tenants


def tenant_of(stored: object) -> str | None:
    """Give the tenant that a stored field names; ``None`` if it names none."""
    return stored if isinstance(stored, str) and stored else None


ANYBODY = Caller(tenant_id=None, key_id=None, role=Role.ADMIN)
"""Everyone, where there is no authentication."""
