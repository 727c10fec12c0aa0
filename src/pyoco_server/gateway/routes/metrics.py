"""What Prometheus reads."""

import asyncio

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from pyoco_server.gateway.auth import WhoIfKnown, needs
from pyoco_server.gateway.metrics import UNCHECKED
from pyoco_server.gateway.state import Here
from pyoco_server.model.access import Role

router = APIRouter(tags=["system"])


@router.get("/metrics", response_class=PlainTextResponse)
@needs(Role.VIEWER, also_unchecked=True)
async def metrics(here: Here, who: WhoIfKnown) -> Response:
    """Give the metrics as text; with NATS away those that are known without it. Flows' names are for admins.

    While the key cannot be checked the answer is that alone, as ``pyoco_nats_up`` 0: an alarm has to see it.
    """
    if who is None:
        return Response(UNCHECKED, media_type=CONTENT_TYPE_PLAIN_0_0_4)
    figures = await here.figures.read()
    text = await asyncio.to_thread(here.metrics.text, figures, flows=who.role is Role.ADMIN)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
