"""What Prometheus reads."""

import asyncio

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from pyoco_server.gateway.access.caller import WhoIfKnown
from pyoco_server.gateway.gateway import Here
from pyoco_server.gateway.monitoring.metrics import UNCHECKED

router = APIRouter(tags=["system"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(here: Here, who: WhoIfKnown) -> Response:
    """Return the metrics as text, of the caller's tenant or of everybody; with NATS away those known without it.

    While the key cannot be checked the answer is that alone, as ``pyoco_nats_up`` 0: an alarm has to see it.
    """
    if who is None:
        return Response(UNCHECKED, media_type=CONTENT_TYPE_PLAIN_0_0_4)
    figures = await here.figures.seen_by(who)
    text = await asyncio.to_thread(here.metrics.text, figures)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
