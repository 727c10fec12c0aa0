"""Who may ask for what: the one table of routes and roles.

``gateway/access/guard.py`` looks here before anything of a request is read, the OpenAPI document and
``docs/how-to/keys.md`` tell the same, and ``tests/integration/test_access_matrix.py`` asks for each line as everybody
there is. What a caller then sees is in ``model/access.py``.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pyoco_server.model.access import Role

PUBLIC = None
"""No key is asked for."""
_ANY_METHOD = "*"

RIGHTS: Mapping[str, Role | None] = MappingProxyType({
    "GET /health": PUBLIC,
    "GET /ready": PUBLIC,
    "GET /": PUBLIC,
    "* /static": PUBLIC,
    # Reads what is its tenant's, and what all share.
    "GET /openapi.json": Role.VIEWER,
    "GET /whoami": Role.VIEWER,
    "GET /overview": Role.VIEWER,
    "GET /doctor": Role.VIEWER,
    "GET /metrics": Role.VIEWER,
    "GET /events": Role.VIEWER,
    "GET /runs": Role.VIEWER,
    "GET /runs/counts": Role.VIEWER,
    "GET /runs/{run_id}": Role.VIEWER,
    "GET /runs/{run_id}/tasks": Role.VIEWER,
    "GET /runs/{run_id}/yaml": Role.VIEWER,
    "GET /runs/{run_id}/graph": Role.VIEWER,
    "GET /runs/{run_id}/watch": Role.VIEWER,
    "GET /runs/{run_id}/logs": Role.VIEWER,
    "GET /runs/{run_id}/why": Role.VIEWER,
    "GET /dlq": Role.VIEWER,
    "GET /dlq/{letter_id}": Role.VIEWER,
    "GET /workers": Role.VIEWER,
    "GET /wheels": Role.VIEWER,
    "GET /wheels/history": Role.VIEWER,
    "GET /wheels/{name}": Role.VIEWER,
    # Changes what is its tenant's.
    "POST /runs": Role.MEMBER,
    "POST /runs/yaml": Role.MEMBER,
    "POST /runs/{run_id}/cancel": Role.MEMBER,
    "POST /runs/{run_id}/rerun": Role.MEMBER,
    "POST /dlq/{letter_id}/replay": Role.MEMBER,
    "DELETE /dlq/{letter_id}": Role.MEMBER,
    "POST /wheels": Role.MEMBER,
    "DELETE /wheels/{name}": Role.MEMBER,
    "POST /wheels/{name}/pin": Role.MEMBER,
    "DELETE /wheels/{name}/pin": Role.MEMBER,
    # Sees to what its tenant does.
    "GET /audit": Role.ADMIN,
    # Changes what all tenants share.
    "PATCH /workers/{worker_id}": Role.OPERATOR,
    "POST /workers/{worker_id}/drain": Role.OPERATOR,
})  # fmt: skip
"""The lowest role for each route; a route that is not here is the operator's."""

ALSO_UNCHECKED = frozenset({"GET /metrics"})
"""What also answers a key that nobody can check, for NATS is away. Such a route takes its caller as ``WhoIfKnown``, and
tells nothing that strangers may not know if there is none."""


def lines_of(path: str, methods: Iterable[str] | None) -> list[str]:
    """Return the table's lines of a route.

    Args:
        path: Its path, with the names of its parameters.
        methods: Its methods; ``None`` for any, as a mounted app has them.
    """
    return [f"{method} {path}" for method in sorted(methods or {_ANY_METHOD})]


def needed(lines: Iterable[str]) -> Role | None:
    """Return the lowest role that may use a route; ``PUBLIC`` where no key is asked for.

    Raises:
        ValueError: its methods need different roles, which one route cannot have.
    """
    roles = {RIGHTS.get(line, Role.OPERATOR) for line in lines}
    if len(roles) != 1:
        raise ValueError(f"{', '.join(lines)} need different roles: make a route of each")
    return roles.pop()
