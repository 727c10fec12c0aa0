"""``pyoco-server-admin api-key``: make, list and revoke keys."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import click

from pyoco_server.cli.output import print_json, print_warning
from pyoco_server.errors import InvalidInput, KeyNotFound, StoreUnavailable
from pyoco_server.model.access import Role, check_tenant
from pyoco_server.model.apikey import ApiKey, ApiKeyRecord, Pepper, is_key_id
from pyoco_server.settings import Settings
from pyoco_server.store.connection import Connection
from pyoco_server.store.keys import KeyStore

_CONNECT_SEC = 5.0
_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=36500)
_Answer = TypeVar("_Answer")


@click.group(name="api-key")
def api_key() -> None:
    """Create, list and revoke API keys."""


@api_key.command()
@click.option("--tenant", required=True, help="Whose runs the key sees and makes.")
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), default=Role.MEMBER.value, show_default=True,
    help="viewer reads; member also submits, cancels, changes wheels and workers; admin also reads the audit trail.",
)  # fmt: skip
@click.option("--expires", help="After a time such as 12h or 30d, or at one such as 2030-01-31T12:00:00+09:00.")
@click.pass_obj
def create(settings: Settings, tenant: str, role: str, expires: str | None) -> None:
    """Make a key and print it; it is not shown again."""
    now = time.time()
    tenant, ends = check_tenant(tenant), None if expires is None else read_end(expires, now)
    pepper = settings.auth_pepper
    seal = Pepper(pepper.get_secret_value() if pepper else None)
    key = ApiKey.new()
    record = seal.seal(key, tenant_id=tenant, role=Role(role), created_at=now, expires_at=ends)

    async def store(keys: KeyStore) -> bool:
        others = await keys.list()
        await keys.create(record)
        return any(other.ended(now) is None and other.pepper_id != seal.id for other in others)

    if _with_store(settings, store):
        print_warning(
            "other keys here were made with another PYOCO_AUTH_PEPPER; the gateway takes those that have its own pepper"
        )
    shown = _shown(record)
    del shown["revoked_at"]
    print_json({"key_id": shown.pop("key_id"), "tenant_id": shown.pop("tenant_id"), "api_key": key.reveal(), **shown})


@api_key.command(name="list")
@click.pass_obj
def list_keys(settings: Settings) -> None:
    """List the keys without their secrets, the newest first."""
    print_json([_shown(record) for record in _with_store(settings, lambda keys: keys.list())])


@api_key.command()
@click.option("--key-id", required=True, help="The id that create and list print.")
@click.pass_obj
def revoke(settings: Settings, key_id: str) -> None:
    """Make a key useless for ever. A gateway stops taking it within seconds."""
    if not is_key_id(key_id):
        whole = ApiKey.parse(key_id)  # never repeated: it may be a whole key, or a part of one
        hint = f"That is a whole key. Its id is {whole.key_id}" if whole else "An id is 24 hexadecimal digits."
        raise KeyNotFound("no api key has this id", hint=hint)
    record = _with_store(settings, lambda keys: keys.revoke(key_id, time.time()))
    print_json({"key_id": record.key_id, "revoked_at": record.revoked_at})


def read_end(text: str, now: float) -> float:
    """Read when a key ends, as unix seconds.

    Args:
        text: ``30d``, ``12h``, or a time in ISO 8601; UTC if it names no zone.
        now: Unix seconds.

    Raises:
        InvalidInput: it is neither, or does not lie in the next hundred years.
    """
    start = datetime.fromtimestamp(now, timezone.utc)
    found = _DURATION.fullmatch(text.strip())
    try:
        if found:
            end = start + timedelta(**{_UNITS[found[2]]: int(found[1])})
        else:
            end = datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text.strip()))
            end = end if end.tzinfo else end.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"--expires {text[:80]!r} is no time", hint="Write 12h, 30d, or 2030-01-31T12:00:00+09:00."
        ) from None
    if not start < end <= start + _LONGEST:
        raise InvalidInput(
            f"--expires {text[:80]!r} does not lie in the next hundred years",
            hint="Leave it out for a key without an end.",
        )
    return end.timestamp()


def _shown(record: ApiKeyRecord) -> dict[str, Any]:
    names = ("key_id", "tenant_id", "created_at", "revoked_at", "role", "expires_at")
    return {name: getattr(record, name) for name in names}


def _with_store(settings: Settings, work: Callable[[KeyStore], Awaitable[_Answer]]) -> _Answer:
    async def connected() -> _Answer:
        connection = await Connection(settings, "pyoco-server-admin", target=settings.keys_target()).start()
        try:
            if not await connection.wait_up(_CONNECT_SEC):
                raise StoreUnavailable(
                    f"NATS is not reachable at {connection.shown_url}",
                    hint="Name it with --nats-url or PYOCO_NATS_URL.",
                )
            keys = KeyStore(connection)
            await keys.ensure()
            return await work(keys)
        finally:
            await connection.close()

    return asyncio.run(connected())
