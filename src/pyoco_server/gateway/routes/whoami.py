"""Who the caller is, so that a page can offer what is allowed and nothing else."""

from typing import Any

from fastapi import APIRouter

from pyoco_server import __version__
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.gateway import Here

router = APIRouter(tags=["system"])


@router.get("/whoami")
async def whoami(here: Here, who: Who) -> dict[str, Any]:
    """Tell what the key that came with the request is and allows."""
    return {
        "auth_mode": here.settings.http_auth_mode,
        "tenant_id": who.tenant_id,
        "key_id": who.key_id,
        "role": who.role.value,
        "version": __version__,
    }
