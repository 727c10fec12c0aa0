"""The OpenAPI document: FastAPI's own, and which key each path needs."""

from typing import Any

from fastapi import FastAPI

from pyoco_server.gateway.guard import doors
from pyoco_server.settings import Settings

_SCHEME = "ApiKey"


class DescribedApp(FastAPI):
    """A FastAPI app whose document tells of keys where they are asked for.

    Args:
        settings: Whether they are, and in which header.
        options: FastAPI's own.
    """

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        self._settings = settings

    def openapi(self) -> dict[str, Any]:
        """Give the document; it is made once."""
        if self.openapi_schema is None and self._settings.http_auth_mode == "api_key":
            self._add_keys(super().openapi())
        return super().openapi()

    def _add_keys(self, document: dict[str, Any]) -> None:
        scheme = {
            "type": "apiKey", "in": "header", "name": self._settings.http_api_key_header,
            "description": "Made with: pyoco-server-admin api-key create. Beside each path stands the lowest role.",
        }  # fmt: skip
        document.setdefault("components", {})["securitySchemes"] = {_SCHEME: scheme}
        needed = {
            (door.route.path, method.lower()): door.needs
            for door in reversed(doors(self))
            for method in door.methods or ()
        }
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                role = needed[path, method]
                if role is not None:
                    operation["security"] = [{_SCHEME: [role.value]}]
                    operation["responses"] |= {
                        "401": {"description": "No key"},
                        "403": {"description": "A bad key, or too low a role"},
                    }
