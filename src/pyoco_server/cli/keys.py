"""``pyoco-server-admin api-key``: make, list and revoke keys."""

import asyncio
import getpass
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import click

from pyoco_server import __version__
from pyoco_server.cli.output import print_json, print_warning
from pyoco_server.errors import InvalidInput, KeyNotFound, StoreUnavailable
from pyoco_server.model.access import Role, check_tenant
from pyoco_server.model.apikey import ApiKey, ApiKeyRecord, Pepper, is_key_id
from pyoco_server.model.audit import AuditAction, AuditEntry, AuditTarget
from pyoco_server.model.existing.api_key import MADE_BY, ExistingKey
from pyoco_server.model.provenance import Source
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats_signer import NatsRole
from pyoco_server.store import topology
from pyoco_server.store.audit import AuditTrail
from pyoco_server.store.keys import KeyStore
from pyoco_server.store.nats.connection import Connection

_CONNECT_SEC = 5.0
_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_WORD = re.compile(r"(?!pyoco_)[A-Za-z0-9_-]{1,24}")
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
    help="viewer reads; member also submits, cancels and uploads; admin also reads its tenant's audit trail; "
    "operator also sees all tenants' figures, and changes workers.",
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
        ours = [other for other in others if other.ended(now) is None and not isinstance(other, ExistingKey)]
        return any(other.pepper_id != seal.id for other in ours)

    if _with_store(settings, store, lambda _: _entry(AuditAction.KEY_CREATE, record)):
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
        whole = ApiKey.parse(key_id)  # never repeated where it may be a whole key, or most of a secret
        print_json({"error": "not_found", "key_id": whole.key_id if whole else _harmless(key_id)})
        hint = f"That is a whole key. Its id is {whole.key_id}" if whole else "An id is 24 hexadecimal digits."
        raise KeyNotFound("no api key has this id", hint=hint)
    now = time.time()

    def entry(revoked: ApiKeyRecord) -> AuditEntry | None:
        # Once more changes nothing.
        return _entry(AuditAction.KEY_REVOKE, revoked) if revoked.revoked_at == now else None

    try:
        record = _with_store(settings, lambda keys: keys.revoke(key_id, now), entry)
    except KeyNotFound:
        print_json({"error": "not_found", "key_id": key_id})  # for programs; the error is for people
        raise
    print_json({"key_id": record.key_id, "revoked_at": record.revoked_at})


def _harmless(text: str) -> str | None:
    """Return a text that is no id, if it is too short to give a key away."""
    return text if _WORD.fullmatch(text) else None


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
    note = {"note": record.problem() or MADE_BY} if isinstance(record, ExistingKey) else {}
    return {**{name: getattr(record, name) for name in names}, **note}


def _entry(action: AuditAction, record: ApiKeyRecord) -> AuditEntry:
    details = {"role": record.role, "expires_at": record.expires_at} if action is AuditAction.KEY_CREATE else {}
    return AuditEntry(
        action=action,
        source=Source(host=socket.gethostname(), user_agent=f"pyoco-server-admin/{__version__}"),
        target=AuditTarget(kind=action.kind, id=record.key_id, tenant_id=record.tenant_id),
        details={**details, "user": _user()},
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container there may be nobody of this number
        return str(os.getuid())


async def _tell(settings: Settings, keys: Connection, entry: AuditEntry) -> None:
    """Tell the audit trail, which lies where the runs do; the change has happened, so trouble is a warning."""
    connection = keys if not settings.keys_apart else await Connection(settings, "pyoco-server-admin:audit").start()
    try:
        if not await connection.wait_up(_CONNECT_SEC):
            raise StoreUnavailable(f"NATS is not reachable at {connection.shown_url}")
        await topology.ensure_one(connection, topology.audit_definition(settings))
        await AuditTrail(connection).store(entry)
    except StoreUnavailable as error:
        print_warning(f"this was done, but the audit trail could not be told: {error.message}")
    finally:
        if connection is not keys:
            await connection.close()


def _with_store(
    settings: Settings,
    work: Callable[[KeyStore], Awaitable[_Answer]],
    entry: Callable[[_Answer], AuditEntry | None] = lambda _: None,
) -> _Answer:
    settings = settings.with_local_signer()

    async def connected() -> _Answer:
        target = settings.keys_target(NatsRole.KEYS_ADMIN)
        connection = await Connection(settings, "pyoco-server-admin", target=target).start()
        try:
            if not await connection.wait_up(_CONNECT_SEC):
                raise StoreUnavailable(
                    f"NATS is not reachable at {connection.shown_url}",
                    hint="Name it with --nats-url or PYOCO_NATS_URL.",
                )
            keys = KeyStore(connection)
            await keys.ensure()
            answer = await work(keys)
            told = entry(answer)
            if told is not None:
                await _tell(settings, connection, told)
            return answer
        finally:
            await connection.close()

    return asyncio.run(connected())
