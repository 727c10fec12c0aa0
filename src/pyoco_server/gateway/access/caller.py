"""Who sends a request, as a parameter of a route; what a route needs of its caller is in ``access/rights.py``."""

from typing import Annotated

from fastapi import Depends, Request

from pyoco_server.errors import KeyRequired, PyocoError
from pyoco_server.model.access import Caller

CALLER = "pyoco_server.caller"
"""Where the guard leaves the caller in the ASGI scope."""


async def _if_known(request: Request) -> Caller | None:
    caller: Caller | None = request.scope[CALLER]
    return caller


async def _caller(request: Request) -> Caller:
    caller = await _if_known(request)
    if caller is None:  # a public route that asks all the same
        raise KeyRequired(request.app.state.settings.http_api_key_header)
    return caller


async def _visitor(request: Request) -> Caller | None:
    try:
        return await request.app.state.gateway.auth.identify(request.scope)  # type: ignore[no-any-return]
    except PyocoError:  # no key, a bad one, or nobody can tell: a public route has an answer for each
        return None


Who = Annotated[Caller, Depends(_caller)]
"""Who sent the request, as a parameter of a route."""
WhoIfKnown = Annotated[Caller | None, Depends(_if_known)]
"""The same, of a route in ``rights.ALSO_UNCHECKED``; ``None`` for a key that nobody can check now."""
Visitor = Annotated[Caller | None, Depends(_visitor)]
"""Who sent the request, as a parameter of a public route; ``None`` for somebody without a good key."""
