"""Who asks: the one place that knows."""

from typing import Annotated

from fastapi import Depends

from pyoco_server.model.access import ANYBODY, Caller


async def _caller() -> Caller:
    return ANYBODY


Who = Annotated[Caller, Depends(_caller)]
"""Who sent the request, as a parameter of a route."""
