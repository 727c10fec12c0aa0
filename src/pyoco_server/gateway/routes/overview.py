"""What the page begins with."""

from typing import Any

from fastapi import APIRouter

from pyoco_server.gateway import overview
from pyoco_server.gateway.auth import Who, needs
from pyoco_server.gateway.state import Here
from pyoco_server.model.access import Role

router = APIRouter(tags=["system"])


@router.get("/overview")
@needs(Role.VIEWER)
async def read_overview(here: Here, who: Who) -> dict[str, Any]:
    """Tell what is wrong now, how the last hour went, and how each tag's queue stands; 200 also while NATS is away."""
    return await overview.overview(here, who)
