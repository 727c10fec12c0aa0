"""What a route needs of its caller, and who that is.

A route says what it needs by a decorator on its function; ``gateway/guard.py`` sees to it before anything of the
request is read. One that says nothing needs an admin.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from pyoco_server.errors import KeyRequired, PyocoError
from pyoco_server.model.access import Caller, Role

CALLER = "pyoco_server.caller"
"""Where the guard leaves the caller in the ASGI scope."""
_NEEDED = "_pyoco_needed_role"
_Declared = TypeVar("_Declared", bound=Any)


def needs(role: Role) -> Callable[[_Declared], _Declared]:
    """Declare the lowest role that may use a route: ``@needs(Role.MEMBER)`` between the route and its function."""

    def declare(endpoint: _Declared) -> _Declared:
        setattr(endpoint, _NEEDED, role)
        return endpoint

    return declare


def public(endpoint: _Declared) -> _Declared:
    """Declare that a route, or an app that is mounted, needs no key."""
    setattr(endpoint, _NEEDED, None)
    return endpoint


def needed(endpoint: Any) -> Role | None:
    """Give what a route's function, or a mounted app, has declared; ``None`` for nothing but the wish."""
    role: Role | None = getattr(endpoint, _NEEDED, Role.ADMIN)
    return role


async def _caller(request: Request) -> Caller:
    caller: Caller | None = request.scope[CALLER]
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
Visitor = Annotated[Caller | None, Depends(_visitor)]
"""Who sent the request, as a parameter of a public route; ``None`` for somebody without a good key."""
