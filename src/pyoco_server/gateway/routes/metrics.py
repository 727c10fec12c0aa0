"""What Prometheus reads."""

import asyncio

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from pyoco_server.gateway.state import Here

router = APIRouter(tags=["system"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(here: Here) -> Response:
    """Give the metrics as text; with NATS away those that are known without it."""
    figures = await here.figures.read()
    text = await asyncio.to_thread(here.metrics.text, figures)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
