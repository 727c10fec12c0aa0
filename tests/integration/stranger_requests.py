"""Random requests for what belongs to others, and the search of their answers.

What may be asked is read from the OpenAPI document, so that a new route is asked too.
"""

import base64
import contextlib
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2

from pyoco_server.model.access import Role
from tests.integration.strangers import NOBODY, Tenant, World
from tests.integration.test_gateway import DEADLINE, FLOW

MISSING = "00000000-0000-4000-8000-000000000000"
_BESIDE = ["/openapi.json", "/", "/ready", "/health", "/static/app.js"]
_READ_SEC = 0.15
_KNOWN = re.compile(
    r"SECRET[0-9a-f]{16}|tenant-[a-z]+-[0-9a-f]{8}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|"
    r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{24})(?![0-9a-f])"
)
_CURSOR = re.compile(r'"next_cursor":"([A-Za-z0-9_-]+)"')
_TELLS_WHO = ("/audit", "/wheels", "/wheels/history", "/wheels/{name}", "/wheels/{name}/pin")
_COPIES = ("/rerun", "/replay")


@dataclass
class Request:
    """A request, and whose things it names."""

    tenant: Tenant
    role: Role
    method: str
    route: str
    path: str
    options: dict[str, Any]
    foreign: bool = False
    """Whether its path names a run or a letter of another tenant."""

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.options}"


@dataclass
class Findings:
    """What a series of requests has brought."""

    leaks: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    """Good answers, by method and route."""
    strange: Counter[str] = field(default_factory=Counter)
    """Requests for another tenant's run or letter."""


class Stranger:
    """Asks, and looks into what it gets.

    Args:
        world: Everybody.
        seed: For the random numbers.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._operations = [
            (method.upper(), path, operation)
            for path, methods in world.document["paths"].items()
            for method, operation in methods.items()
        ]
        # What has an owner is asked for most.
        self._weights = [4 if "{run_id}" in path or "{letter_id}" in path else 1 for _, path, _ in self._operations]
        self._people = [tenant for tenant in world.tenants.values() if tenant.clients]
        self.findings = Findings()

    async def ask(self) -> None:
        """Send one random request and search its answer."""
        request = self._make()
        client = request.tenant.clients[request.role]
        try:
            status, text = await _send(client, request)
        except httpx2.ReadError:  # the server let go of an idle connection in the very moment of its use
            status, text = await _send(client, request)
        name = f"{request.method} {request.route}"
        found = self.findings
        found.asked[name] += 1
        found.strange[name] += request.foreign
        found.answered[name] += status < 400
        if request.foreign and status not in (403, 404, 422):
            found.leaks.append(f"{request} by {request.role.value}: {status}")
        if status == 500:  # a fault of ours; 503 is an answer of a busy server
            found.leaks.append(f"{request} by {request.role.value}: {status} {text[:300]}")
        for secret in self._seen(request, text):
            at = text.find(secret)
            found.leaks.append(f"{request} by {request.role.value}: {secret} in …{text[max(0, at - 150) : at + 80]}…")
        self._learn(request.tenant, text)

    def _make(self) -> Request:
        draw = self._random
        tenant, role = draw.choice(self._people), draw.choice([*Role, Role.MEMBER])
        if draw.random() < 0.02:
            path = draw.choice(_BESIDE)
            return Request(tenant, role, "GET", path, path, {})
        method, route, operation = draw.choices(self._operations, self._weights)[0]
        request = Request(tenant, role, method, route, route, {})
        query: dict[str, Any] = {}
        headers: dict[str, str] = {}
        for parameter in operation.get("parameters", []):
            name, place = parameter["name"], parameter["in"]
            if place == "path":
                request.path = request.path.replace(f"{{{name}}}", self._path_value(request, name))
            elif draw.random() < 0.35:
                value = str(self._value(tenant, name, parameter["schema"]))
                (query if place == "query" else headers)[name] = value
        if route.endswith("/watch"):
            query["timeout_sec"] = 1
        request.options = {"params": query, "headers": headers, **self._body(tenant, route, method)}
        return request

    def _path_value(self, request: Request, name: str) -> str:
        draw = self._random
        if name not in ("run_id", "letter_id"):
            return str(self._value(request.tenant, name, {}))
        changes = request.method != "GET"
        copies = request.route.endswith(_COPIES)  # of nobody's things would make them the tenant's own
        owners = [owner for owner in self._world.tenants.values() if not (copies and not owner.clients)]
        owner = draw.choice(owners)
        things: list[Any] = sorted(owner.runs if name == "run_id" else owner.letters)
        if owner is request.tenant and changes:
            things = [thing for thing in things if thing not in owner.canaries]
        if not things or draw.random() < 0.05:
            return MISSING if name == "run_id" else "987654"
        nobodys = not owner.clients
        request.foreign = owner is not request.tenant and not (nobodys and request.role is Role.OPERATOR)
        if nobodys and not request.foreign and changes:
            return MISSING if name == "run_id" else "987654"  # its canaries are nobody's to change
        return str(draw.choice(things))

    def _value(self, tenant: Tenant, name: str, schema: dict[str, Any]) -> Any:
        draw, world = self._random, self._world
        owners = list(world.tenants.values())
        runs = [run_id for owner in owners for run_id in draw.sample(sorted(owner.runs), 2)]
        pools: dict[str, list[Any]] = {
            "run_id": runs, "rerun_of": runs, "id": [run_id[: draw.randint(1, 30)] for run_id in runs],
            "letter_id": [1], "before": [5, 20, 10_000],
            "worker_id": world.workers, "worker": world.workers,
            "name": [path.name for path in world.wheels] + ["package-3==1.0", "package-4"],
            "wheel_name": [path.name for path in world.wheels],
            "flow": [f"flow-{owner.marker}" for owner in owners],
            "tag": ["cpu", "gpu"],
            "workflow_yaml_sha256": [one for owner in owners for one in owner.hashes],
            "cursor": ["", "3", *(one for owner in owners for one in owner.cursors[-5:])],
            "actor": [one for owner in owners for one in sorted(owner.key_ids)],
            "include": ["records", "full"], "Idempotency-Key": [f"k{n}" for n in range(1, 12)],
            "Last-Event-ID": ["1", "7", *(one for owner in owners for one in owner.cursors[-3:])],
            "updated_after": [0, time.time() - 5],
        }  # fmt: skip
        if name in pools:
            return draw.choice(pools[name])
        for option in [schema, *schema.get("anyOf", [])]:
            shape = self._resolved(option)
            if "enum" in shape:
                return draw.choice(shape["enum"])
            if shape.get("type") == "boolean":
                return draw.choice(["true", "false"])
            if shape.get("type") in ("integer", "number"):
                return draw.randint(int(shape.get("minimum", 1)), int(min(shape.get("maximum", 50), 500)))
        return draw.choice([*runs, *(f"flow-{owner.marker}" for owner in owners), "PENDING", "FAILED"])

    def _resolved(self, shape: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in shape:
            found: dict[str, Any] = self._world.document["components"]["schemas"][shape["$ref"].rsplit("/", 1)[1]]
            return found
        return shape

    def _body(self, tenant: Tenant, route: str, method: str) -> dict[str, Any]:
        """Make a body of the tenant's own words: what is somebody else's in an answer then came from somewhere else."""
        draw, flow = self._random, f"flow-{tenant.marker}"
        keyed = {"idempotency_key": f"k{draw.randint(1, 11)}"} if draw.random() < 0.5 else {}
        if (method, route) == ("POST", "/runs"):
            return {"json": {"flow_name": flow, "params": {"x": tenant.marker}, "tag": "cpu", **keyed}}
        if (method, route) == ("POST", "/runs/yaml"):
            files = {"workflow": ("f.yaml", f"# {tenant.marker} {draw.randint(1, 3)}\n{FLOW}")}
            return {"files": files, "data": {"flow_name": flow, "tag": "cpu", **keyed}}
        if (method, route) == ("POST", "/wheels"):
            path = draw.choice(self._world.wheels)
            return {"files": {"wheel": (path.name, path.read_bytes())}}
        if method in ("POST", "PATCH", "PUT"):
            operation = self._world.document["paths"][route][method.lower()]
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            options = [content.get("schema", {}), *content.get("schema", {}).get("anyOf", [])]
            names = {
                name: kind for option in options for name, kind in self._resolved(option).get("properties", {}).items()
            }
            # What is said of a worker is said to everybody.
            text = tenant.marker if route.startswith(("/runs", "/dlq")) else "maintenance"
            words = {
                name: draw.random() < 0.5 if kind.get("type") == "boolean" else text for name, kind in names.items()
            }
            return {"json": words} if words and draw.random() < 0.8 else {}
        return {}

    def _seen(self, request: Request, text: str) -> set[str]:
        """Give what an answer holds of others."""
        for cursor in _CURSOR.findall(text):
            with contextlib.suppress(ValueError):
                text += base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("utf-8", "replace")
        if request.route == "/audit":
            text = _without_own_wishes(text, request.tenant)
        known = set(_KNOWN.findall(text))
        carried = set(_KNOWN.findall(f"{request.path} {request.options}"))
        seen: set[str] = set()
        for name, other in self._world.tenants.items():
            if other is request.tenant:
                continue
            theirs = other.secrets
            if request.role is Role.OPERATOR:
                if name == NOBODY:
                    continue
                theirs -= other.operator_keys
                if request.route in _TELLS_WHO:
                    theirs -= {other.name, *other.key_ids}
                if request.route == "/metrics":
                    theirs -= {other.marker}
            seen |= known & theirs - carried
        return seen

    def _learn(self, tenant: Tenant, text: str) -> None:
        tenant.cursors += _CURSOR.findall(text)[:1] + re.findall(r"^id: (\S+)$", text, re.MULTILINE)[:1]
        if text.startswith('{"run_id":"') and '"created":' in text:
            tenant.runs.add(json.loads(text.partition("\n")[0])["run_id"])


def _without_own_wishes(text: str, tenant: Tenant) -> str:
    """Leave out of the trail the ids that somebody of the tenant has asked for in vain: these are no news to it."""
    if not text.startswith('{"items"'):
        return text
    body = json.loads(text.partition("\n")[0])
    for item in body["items"]:
        if item["outcome"] == "refused" and item["actor"]["tenant_id"] == tenant.name:
            item["target"]["id"] = None
    return json.dumps(body)


async def _send(client: httpx2.AsyncClient, request: Request) -> tuple[int, str]:
    """Send a request and give its status, body and headers; of a stream the beginning of its body."""
    async with client.stream(request.method, request.path, **request.options) as answer:
        streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
        parts: list[str] = []
        with anyio.move_on_after(_READ_SEC if streamed else DEADLINE):
            async for part in answer.aiter_text():
                parts.append(part)  # noqa: PERF401 - what came before the time is up counts
    return answer.status_code, f"{''.join(parts)}\n{dict(answer.headers)}"
