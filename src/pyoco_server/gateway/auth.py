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
_UNCHECKED = "_pyoco_also_unchecked"
_Declared = TypeVar("_Declared", bound=Any)


def needs(role: Role, *, also_unchecked: bool = False) -> Callable[[_Declared], _Declared]:
    """Declare the lowest role that may use a route: ``@needs(Role.MEMBER)`` between the route and its function.

    Args:
        role: The role.
        also_unchecked: Whether the route also answers a key that nobody can check, for NATS is away. It takes its
            caller as ``WhoIfKnown`` then, and tells nothing that strangers may not know if there is none.
    """

    def declare(endpoint: _Declared) -> _Declared:
        setattr(endpoint, _NEEDED, role)
        setattr(endpoint, _UNCHECKED, also_unchecked)
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


def answers_unchecked(endpoint: Any) -> bool:
    """Tell whether a route's function has declared that it also answers keys that nobody can check."""
    return bool(getattr(endpoint, _UNCHECKED, False))


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
"""The same, of a route that declared ``also_unchecked``; ``None`` for a key that nobody can check now."""
Visitor = Annotated[Caller | None, Depends(_visitor)]
"""Who sent the request, as a parameter of a public route; ``None`` for somebody without a good key."""
