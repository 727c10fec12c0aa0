"""Stands before every route: who is it, and may that one?

A dependency would come too late. FastAPI reads and parses the body first, so that a caller without a key would be told
what is wrong with it, and could make the server read it.
"""

import re
from dataclasses import dataclass

from fastapi.routing import RouteContext, iter_route_contexts
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyoco_server.errors import (
    InvalidKey,
    KeyRequired,
    MethodNotAllowed,
    PyocoError,
    RoleTooLow,
    StoreUnavailable,
    TooManyFailedKeys,
)
from pyoco_server.gateway.access.authenticator import Authenticator
from pyoco_server.gateway.access.browsers import Browsers
from pyoco_server.gateway.access.caller import CALLER
from pyoco_server.gateway.access.rights import ALSO_UNCHECKED, lines_of, needed
from pyoco_server.gateway.problems import problem
from pyoco_server.model.access import Caller, Role
from pyoco_server.settings.environment import Settings

_WITHOUT_BODY = frozenset({"GET", "HEAD"})
_FILES = frozenset({"GET"})
"""What a mounted app takes: ours serve files."""


@dataclass(frozen=True)
class Door:
    """A route, and what it needs."""

    path: re.Pattern[str]
    methods: frozenset[str]
    needs: Role | None
    also_unchecked: bool
    route: RouteContext


class Guard:
    """ASGI middleware. Public routes pass; for all else, also for paths that do not exist, there must be a good key.

    Args:
        app: What comes after it.
        settings: Whether there are keys, and what browsers may do.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._browsers = Browsers(settings)
        self._doors: list[Door] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if self._doors is None:
            self._doors = doors(scope["app"])
        door = _find(self._doors, scope)
        scope[CALLER] = None
        try:
            self._browsers.check(scope)
            caller = await _admit(scope, door)
            if door is None:
                _check_method(self._doors, scope)
        except PyocoError as error:
            scope["route"] = door.route if door else None  # for the metrics
            await _refuse(error, scope, receive, send)
            return
        if caller is None or caller.key_id is None or scope.get("method") in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope["app"].state.gateway.auth, caller, receive, send)
        await self._app(scope, exchange.receive, exchange.send)
        if exchange.refused is not None and not exchange.answered:
            await _refuse(exchange.refused, scope, receive, send)


class _Exchange:
    """Looks at the key again when the body has arrived: that may take longer than a revoked key has."""

    def __init__(self, auth: Authenticator, caller: Caller, receive: Receive, send: Send) -> None:
        self._auth = auth
        self._caller = caller
        self._receive = receive
        self._send = send
        self.refused: PyocoError | None = None
        self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request" or message.get("more_body"):
            return message
        try:
            if not await self._auth.holds(self._caller):
                self.refused = InvalidKey()
        except PyocoError as error:
            self.refused = error
        return message if self.refused is None else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.refused is not None and not self.answered:
            return  # the app took the cut for a client that went away
        self.answered = True
        await self._send(message)


def doors(app: Starlette) -> list[Door]:
    """Give the routes of an app in the order in which they are tried."""
    found = []
    for route in iter_route_contexts(app.routes):
        lines = lines_of(route.path or "", route.methods)
        methods = frozenset(route.methods or _FILES)
        found.append(Door(route.path_regex, methods, needed(lines), not ALSO_UNCHECKED.isdisjoint(lines), route))
    return found


def _find(candidates: list[Door], scope: Scope) -> Door | None:
    """Find the route that will answer; ``None`` if there is none, or none for this method."""
    path, method = get_route_path(scope), scope.get("method")
    for door in candidates:
        if method in door.methods and door.path.match(path):
            return door
    return None


def _check_method(candidates: list[Door], scope: Scope) -> None:
    """Refuse a request whose path is there, and takes other methods; each route alone would name its own.

    Raises:
        MethodNotAllowed: it is so.
    """
    path = get_route_path(scope)
    allowed = {method for door in candidates if door.path.match(path) for method in door.methods}
    if allowed:
        raise MethodNotAllowed(allowed | ({"HEAD"} if "GET" in allowed else set()))


async def _admit(scope: Scope, door: Door | None) -> Caller | None:
    """Give who may pass; ``None`` where nobody is asked, or nobody can tell and that is enough.

    Raises:
        PyocoError: this one may not, or nobody can tell.
    """
    if door is not None and door.needs is None:
        return None
    auth: Authenticator = scope["app"].state.gateway.auth
    try:
        caller = scope[CALLER] = await auth.identify(scope)  # also of who is refused: the audit trail names it
    except StoreUnavailable:
        if door is not None and door.also_unchecked:
            return None
        raise
    if door is not None and door.needs is not None and not caller.role.allows(door.needs):
        raise RoleTooLow(caller.role.value, door.needs.value)
    return caller


async def _refuse(error: PyocoError, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {}
    if isinstance(error, KeyRequired):
        headers["WWW-Authenticate"] = "ApiKey"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, TooManyFailedKeys):
        headers["Retry-After"] = str(error.retry_after_sec)
    await problem(error.http_status, error.message, error.code, error.hint, headers=headers)(scope, receive, send)
