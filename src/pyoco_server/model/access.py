"""Who asks, and what that one may see and change."""

import re
from dataclasses import dataclass
from enum import Enum

from pyoco_server.errors import InvalidInput

_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
Tenants = tuple[str | None, ...] | None
"""Whose things: those of some tenants, ``None`` among them for what belongs to none; ``None`` alone: everybody's."""


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
    """Reads what is its tenant's."""
    MEMBER = "member"
    """Changes what is its tenant's: submits, cancels and reruns runs, replays dead letters, uploads wheels."""
    ADMIN = "admin"
    """Reads its tenant's audit trail."""
    OPERATOR = "operator"
    """Runs the system: sees everybody's figures and what belongs to no tenant, and changes what all tenants share."""

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
    def operates(self) -> bool:
        """Whether this is somebody who runs the system; everybody, where there is no authentication."""
        return self.role.allows(Role.OPERATOR)

    @property
    def tenants(self) -> Tenants:
        """Whose things are seen: the own tenant's, by an operator also those of none, without authentication all."""
        if self.tenant_id is None:
            return None
        return (self.tenant_id, None) if self.operates else (self.tenant_id,)

    @property
    def figures(self) -> Tenants:
        """Whose things are counted in what is told; an operator is told of everybody's, and still sees none of them."""
        return None if self.operates else self.tenants

    def sees(self, tenant_id: object) -> bool:
        """Tell whether a thing of a tenant may be seen; ``None`` is the tenant of what was made without a key.

        Without authentication everything is seen; with it, what belongs to no tenant is the operators' business.

        Args:
            tenant_id: As it is stored, perhaps by another program.
        """
        return self.tenants is None or tenant_of(tenant_id) in self.tenants


def tenant_of(stored: object) -> str | None:
    """Give the tenant that a stored field names; ``None`` if it names none."""
    return stored if isinstance(stored, str) and stored else None


ANYBODY = Caller(tenant_id=None, key_id=None, role=Role.OPERATOR)
"""Everyone, where there is no authentication."""
