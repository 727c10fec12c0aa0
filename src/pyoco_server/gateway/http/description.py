"""The OpenAPI document: FastAPI's own, with what stands before every route, and which key each path needs."""

from typing import Any

from fastapi import FastAPI

from pyoco_server.errors import (
    ForeignHost,
    ForeignOrigin,
    HeaderRepeated,
    InvalidInput,
    InvalidKey,
    KeyRequired,
    PyocoError,
    RoleTooLow,
    StoreUnavailable,
    TooLarge,
    TooManyFailedKeys,
)
from pyoco_server.gateway.access.guard import Door, doors
from pyoco_server.gateway.http.answers import Problem, described
from pyoco_server.settings.environment import Settings

_SCHEME = "ApiKey"
_FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")
_EVERYWHERE: tuple[type[PyocoError], ...] = (ForeignOrigin, ForeignHost, TooLarge, InvalidInput)
"""What ``browsers.py``, ``limits.py``, ``prefix.py`` and FastAPI's own reader may answer before any route does."""
_REPEATED = (400, 401, 422)
"""What ``single_headers.py`` answers, by the header."""
_WITH_KEYS: tuple[type[PyocoError], ...] = (KeyRequired, InvalidKey, RoleTooLow, TooManyFailedKeys)


class DescribedApp(FastAPI):
    """A FastAPI app whose document tells all that may be answered, and of keys where they are asked for.

    Args:
        settings: Whether they are, and in which header.
        options: FastAPI's own.
    """

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        self._settings = settings

    def openapi(self) -> dict[str, Any]:
        """Give the document; it is made once."""
        if self.openapi_schema is None:
            self._complete(super().openapi())
        return super().openapi()

    def _complete(self, document: dict[str, Any]) -> None:
        with_keys = self._settings.http_auth_mode == "api_key"
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for name in _FASTAPIS_OWN:
            schemas.pop(name, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= {**problem.pop("$defs"), "Problem": problem}
        if with_keys:
            components["securitySchemes"] = {_SCHEME: self._scheme()}
        found = {(door.route.path, method.lower()): door for door in reversed(doors(self)) for method in door.methods}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                door = found[path, method]
                if with_keys and door.needs is not None:
                    operation["security"] = [{_SCHEME: [door.needs.value]}]
                _add_refusals(operation["responses"], door, with_keys=with_keys)

    def _scheme(self) -> dict[str, Any]:
        return {
            "type": "apiKey", "in": "header", "name": self._settings.http_api_key_header,
            "description": "Made with: pyoco-server-admin api-key create. Beside each path stands the lowest role.",
        }  # fmt: skip


def _add_refusals(responses: dict[str, Any], door: Door, *, with_keys: bool) -> None:
    """Add what may be answered before the route is asked, and in the place of what FastAPI tells of its own errors."""
    classes = list(_EVERYWHERE)
    if with_keys and door.needs is not None:
        classes += [*_WITH_KEYS, *(() if door.also_unchecked else (StoreUnavailable,))]
    by_status: dict[int, list[type[PyocoError]]] = {status: [HeaderRepeated] for status in _REPEATED}
    for error in classes:
        by_status.setdefault(error.http_status, []).append(error)
    for status, errors in sorted(by_status.items()):
        if str(status) not in responses or _FASTAPIS_OWN[0] in str(responses[str(status)]):
            responses[str(status)] = described(status, *errors)
    responses.setdefault("500", described(500, PyocoError))
