"""Who asks, and what that one may see and change."""

from dataclasses import dataclass
from enum import Enum


class Role(str, Enum):
    """What a key allows; each role may do what the ones before it may."""

    VIEWER = "viewer"
    """Reads."""
    MEMBER = "member"
    """Submits, cancels and reruns runs of its tenant; changes wheels and workers."""
    ADMIN = "admin"
    """Reads the audit trail, and what belongs to no tenant."""

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

    def sees(self, tenant_id: object) -> bool:
        """Tell whether a thing of a tenant may be seen; ``None`` is the tenant of what was made without a key.

        Without authentication everything is seen; with it, what belongs to no tenant is the admins' business.
        """
        if self.tenant_id is None:
            return True
        return tenant_id == self.tenant_id or (tenant_id is None and self.role is Role.ADMIN)


ANYBODY = Caller(tenant_id=None, key_id=None, role=Role.ADMIN)
"""Everyone, where there is no authentication."""
