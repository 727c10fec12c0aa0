"""Sees to it that what a request changes, or tried to, is told to the audit trail.

A route that changes something declares what it does by a decorator on its function, and notes in its ``Change`` what
only it knows. The rest is known here, outside of everything that may refuse a request.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyoco_server.gateway.access.caller import CALLER
from pyoco_server.gateway.audit.log import AuditLog
from pyoco_server.gateway.audit.provenance import actor_of, source_of
from pyoco_server.model.access import Caller
from pyoco_server.model.audit import AuditAction, AuditEntry, AuditOutcome, AuditTarget

_CHANGE = "pyoco_server.change"
_DECLARED = "_pyoco_audit"
_SHARED = frozenset({"worker"})
"""Kinds of things that belong to all tenants."""
_REFUSED = frozenset({403, 404})
_LONGEST_ID = 300
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Declared:
    """What a route does.

    Attributes:
        action: What it is.
        parameter: The parameter of its path that names the thing; ``None`` if there is none.
    """

    action: AuditAction
    parameter: str | None


def changes(action: AuditAction, parameter: str | None = None) -> Callable[[_Endpoint], _Endpoint]:
    """Declare what a route does: ``@changes(AuditAction.RUN_CANCEL, "run_id")`` between the route and its function."""

    def declare(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _DECLARED, Declared(action, parameter))
        return endpoint

    return declare


def declared(endpoint: Any) -> Declared | None:
    """Give what a route's function has declared."""
    found: Declared | None = getattr(endpoint, _DECLARED, None)
    return found


@dataclass
class Change:
    """What a route notes of its change.

    Attributes:
        happened: Whether anything was changed; a repeat of what was done before changes nothing.
        target_id: The thing, where the path does not name it.
        tenant_id: Whose it is.
        details: What else is worth knowing; never params or results.
    """

    happened: bool = True
    target_id: str | None = None
    tenant_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


async def _change(request: Request) -> Change:
    change: Change = request.scope[_CHANGE]
    return change


Noted = Annotated[Change, Depends(_change)]
"""The note of a request's change, as a parameter of a route."""


class Auditing:
    """ASGI middleware.

    Args:
        app: What comes after it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        change = scope[_CHANGE] = Change()
        told = False

        async def tell(message: Message) -> None:
            nonlocal told
            if message["type"] == "http.response.start" and not told:
                told = True
                _tell(scope, change, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, tell)
        except Exception:
            if not told:
                _tell(scope, change, 500)  # what is outside of us answers that
            raise


def _tell(scope: Scope, change: Change, status: int) -> None:
    does = declared(scope.get("endpoint") or getattr(scope.get("route"), "endpoint", None))
    caller: Caller | None = scope.get(CALLER)
    outcome = _outcome(status, change)
    if does is None or caller is None or outcome is None:
        return
    named = _path_params(scope).get(does.parameter or "")
    target_id = change.target_id or (None if named is None else str(named)[:_LONGEST_ID])
    kind = does.action.kind
    # What was refused is the business of the caller's tenant, whosever the thing is, if there is one.
    tenant_id = change.tenant_id if outcome is AuditOutcome.DONE or kind in _SHARED else caller.tenant_id
    audit: AuditLog = scope["app"].state.gateway.audit
    audit.add(
        AuditEntry(
            action=does.action,
            outcome=outcome,
            status=status,
            actor=actor_of(caller),
            source=source_of(Request(scope)),
            target=AuditTarget(kind=kind, id=target_id, tenant_id=tenant_id),
            details={} if outcome is AuditOutcome.REFUSED else change.details,
        )
    )


def _path_params(scope: Scope) -> dict[str, Any]:
    if "path_params" in scope:
        params: dict[str, Any] = scope["path_params"]
        return params
    found = scope["route"].path_regex.match(get_route_path(scope))  # the guard refused it before it was routed
    return found.groupdict() if found else {}


def _outcome(status: int, change: Change) -> AuditOutcome | None:
    if status < 400:
        return AuditOutcome.DONE if change.happened else None
    if status in _REFUSED:
        return AuditOutcome.REFUSED
    return AuditOutcome.UNKNOWN if status >= 500 else None
