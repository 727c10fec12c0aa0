"""What a call asks of a server that the existing system's servers cannot do."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_PLACE = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True)
class Need:
    """A path, or an option of one.

    Args:
        what: What the server must be able to do, as the end of "it cannot …".
        method: In small letters.
        path: As the server's description has it, with ``{}`` for each part that varies.
        option: In the query, a header or the body; ``None`` for the path itself.
    """

    what: str
    method: str
    path: str
    option: str | None = None

    def is_met(self, document: Mapping[str, Any]) -> bool:
        """Whether a server has it.

        Args:
            document: The server's own description (OpenAPI).
        """
        for path, operations in document["paths"].items():
            operation = operations.get(self.method) if _PLACE.sub("{}", path) == self.path else None
            if isinstance(operation, dict):
                return self.option is None or self.option in set(_options(operation, document))
        return False


class OwnKey(str):
    """An idempotency key that nobody asked for: a server that knows no keys may leave it aside."""

    __slots__ = ()


def _options(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterable[str]:
    for parameter in operation.get("parameters") or ():
        yield str(parameter.get("name"))
    for body in ((operation.get("requestBody") or {}).get("content") or {}).values():
        for schema in _schemas(body.get("schema") or {}, document):
            yield from schema.get("properties") or ()


def _schemas(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Return a schema, or those that it names; one that may be left out is one of several."""
    for one in (schema, *(schema.get("anyOf") or ())):
        name = str(one.get("$ref") or "").rpartition("/")[2]
        yield (document.get("components") or {}).get("schemas", {}).get(name, {}) if name else one
