"""What the page begins with."""

from typing import Any

from fastapi import APIRouter

from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.gateway import Here
from pyoco_server.gateway.monitoring import overview

router = APIRouter(tags=["system"])


@router.get("/overview")
async def read_overview(here: Here, who: Who) -> dict[str, Any]:
    """Tell what is wrong now, how the last hour went, and how each tag's queue stands; 200 also while NATS is away."""
    return await overview.overview(here, who)
