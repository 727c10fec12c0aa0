"""The audit trail: who changed what."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.gateway import Here
from pyoco_server.gateway.http.answers import refusals
from pyoco_server.gateway.http.words import Action, Outcome

router = APIRouter(tags=["system"])

_LONGEST_TARGET = 300


@router.get("/audit", responses=refusals(StoreUnavailable))
async def list_audit(
    here: Here,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{0,18}$")] = None,
    action: Action = None,
    actor: Annotated[str | None, Query(max_length=128)] = None,
    outcome: Outcome = None,
    target: Annotated[str | None, Query(max_length=_LONGEST_TARGET)] = None,
) -> dict[str, Any]:
    """List what was changed or refused, the newest first: of one's own tenant, and of what all share."""
    entries, following = await here.trail.list(
        limit=limit,
        before=int(cursor) if cursor else None,
        tenants=who.tenants,
        action=action,
        actor=actor or None,
        outcome=outcome,
        target=target or None,
    )
    return {"items": entries, "next_cursor": None if following is None else str(following)}
