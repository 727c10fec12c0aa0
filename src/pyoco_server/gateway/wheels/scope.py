"""Whose wheels a caller sees and changes.

A wheel is a tenant's, or all tenants share it: its code then runs in everybody's runs, and only an operator changes it.
"""

from collections.abc import Iterable
from typing import Annotated

from fastapi import Query

from pyoco_server.errors import InvalidInput, RoleTooLow, WheelNotFound
from pyoco_server.gateway.gateway import Gateway
from pyoco_server.model.access import Caller, Role, check_tenant
from pyoco_server.model.wheels.wheel import WheelEntry

_LONGEST = 80

OfTenant = Annotated[
    str | None,
    Query(
        max_length=_LONGEST,
        description="Whose wheel is meant; empty: one that all share. Absent: the caller's own, then shared ones; "
        "for an operator, shared ones.",
    ),
]


def sees_wheels_of(who: Caller, tenant_id: str | None) -> bool:
    """Return whether somebody sees a tenant's wheels; ``None`` stands for those that all share."""
    return tenant_id is None or tenant_id == who.tenant_id or who.operates


def visible(who: Caller, entries: Iterable[WheelEntry]) -> list[WheelEntry]:
    """Return the wheels that somebody sees."""
    return [entry for entry in entries if sees_wheels_of(who, entry.tenant_id)]


def visible_tenants(who: Caller) -> tuple[str | None, ...] | None:
    """Return the tenants whose wheels somebody sees, ``None`` among them for shared ones; ``None`` alone: everybody."""
    return None if who.operates else (who.tenant_id, None)


def scopes(who: Caller, asked: str | None) -> tuple[str | None, ...]:
    """Return the tenants among whose wheels to look for one that was named, in this order; ``None``: shared ones.

    Args:
        who: The caller.
        asked: Whose it shall be; an empty text for a shared one; ``None`` where nothing was said.

    Returns:
        Nothing where the caller sees none of them.

    Raises:
        InvalidInput: that cannot be the name of a tenant.
    """
    if asked is None:
        return (None,) if who.operates else (who.tenant_id, None)
    if asked == "":
        return (None,)
    tenant_id = check_tenant(asked)
    return (tenant_id,) if sees_wheels_of(who, tenant_id) else ()


def check_may_change(who: Caller, tenant_id: str | None) -> None:
    """Let somebody change a wheel that he or she sees.

    Raises:
        RoleTooLow: all share it, and the caller does not run the system.
    """
    if not who.operates and (tenant_id is None or tenant_id != who.tenant_id):
        raise RoleTooLow(who.role.value, Role.OPERATOR.value, "changing a wheel that is not of one's own tenant")


def owner_of_upload(who: Caller, named: str) -> str | None:
    """Return the tenant that an uploaded wheel shall belong to; ``None``: all share it.

    Args:
        who: The caller.
        named: The form's field ``tenant``; empty where nothing was said.

    Raises:
        InvalidInput: that cannot be the name of a tenant, or there are none.
        RoleTooLow: it is another one than the caller's.
    """
    named = named.strip()
    if not named:
        return None if who.operates else who.tenant_id
    tenant_id = check_tenant(named)
    if who.tenant_id is None:
        raise InvalidInput(
            f"the wheel cannot be for tenant {tenant_id}: without API keys runs belong to no tenant",
            hint="Leave tenant out, or ask for keys: PYOCO_HTTP_AUTH_MODE=api_key",
        )
    check_may_change(who, tenant_id)
    return tenant_id


async def find_wheel(here: Gateway, who: Caller, name: str, asked: str | None) -> WheelEntry:
    """Return the wheel of a file name that a caller means.

    Args:
        here: The gateway.
        who: The caller.
        name: The file name.
        asked: Whose it shall be, as in ``scopes``.

    Raises:
        WheelNotFound: there is none, or the caller does not see it.
        StoreUnavailable: NATS is away.
    """
    for tenant_id in scopes(who, asked):
        try:
            return await here.wheels.get(name, tenant_id)
        except WheelNotFound:
            continue
    raise WheelNotFound(f"there is no wheel {name[:200]!r}", hint=_elsewhere(who, await here.wheels.list(), name))


def _elsewhere(who: Caller, entries: Iterable[WheelEntry], name: str) -> str:
    """Name the tenants that have a wheel of this name, to somebody who sees them."""
    found = sorted({entry.tenant_id for entry in visible(who, entries) if entry.name == name and entry.tenant_id})
    return f"Tenants that have it: {', '.join(found[:20])}. Say which is meant: --tenant {found[0]}" if found else ""
