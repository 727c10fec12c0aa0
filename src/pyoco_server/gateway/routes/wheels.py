"""Wheels: the code that workers use, uploaded, listed, pinned and deleted."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from pyoco_server.errors import (
    InvalidInput,
    PyocoError,
    StoreUnavailable,
    WheelDamaged,
    WheelNotFound,
    WheelVersionConflict,
)
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.audit.middleware import Noted, changes
from pyoco_server.gateway.audit.provenance import actor_of, source_of
from pyoco_server.gateway.gateway import Gateway, Here
from pyoco_server.gateway.http.answers import WRITES, Bytes, refusals
from pyoco_server.gateway.http.words import WheelDeed
from pyoco_server.gateway.wheels.scope import (
    OfTenant,
    check_may_change,
    find_wheel,
    owner_of_upload,
    scopes,
    visible,
    visible_tenants,
)
from pyoco_server.gateway.wheels.upload import inspected, receive
from pyoco_server.model.access import Caller
from pyoco_server.model.audit import AuditAction
from pyoco_server.model.provenance import Actor, Source
from pyoco_server.model.tags import parse_tags
from pyoco_server.model.wheels.event import WheelAction, WheelEvent
from pyoco_server.model.wheels.file_name import read_file_name
from pyoco_server.model.wheels.wheel import WheelEntry, named_by, pins_replaced

log = structlog.get_logger(__name__)

router = APIRouter(tags=["wheels"])

_MOST_TAGS = 64
_PIECES = 128
"Of its bytes, what NATS adds to a wheel at most, in pieces as small as a server may ask for."
_BESIDE = 8192
"Bytes of what is known of a wheel, of its history and of the audit trail."
_LONGEST_NAME = 300
_YES = {"1", "true", "yes", "on"}
_NO = {"0", "false", "no", "off"}
_UPLOAD_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["wheel"],
                    "properties": {
                        "wheel": {"type": "string", "format": "binary"},
                        "tags": {"type": "string", "description": "Comma list; absent: for all workers."},
                        "replace": {"type": "boolean", "description": "Without effect."},
                        "tenant": {
                            "type": "string",
                            "description": "Whose runs alone shall have it; absent: those of the caller's tenant, "
                            "or all runs if the caller is an operator.",
                        },
                    },
                }
            }
        },
    }
}


@router.get("/wheels", responses=refusals(StoreUnavailable))
async def list_wheels(here: Here, who: Who) -> list[WheelEntry]:
    """List the wheels by name: one's own tenant's, and those that all share."""
    return visible(who, await here.wheels.list())


@router.post("/wheels", responses=refusals(WheelVersionConflict, *WRITES), openapi_extra=_UPLOAD_FORM)
@changes(AuditAction.WHEEL_UPLOAD)
async def upload_wheel(here: Here, who: Who, change: Noted, request: Request) -> WheelEntry:
    """Store a wheel, if it is a good one and newer than all of its package that the same tenant has."""
    _ = here.connection.client  # raises at once when NATS is away, before anything travels
    await here.room.check()
    largest = here.settings.wheel_max_bytes
    async with (
        receive(request, here.settings.state_dir, largest, here.uploads.room) as upload,
        here.uploads.checks.slot(),
    ):
        tags = parse_tags(upload.fields["tags"]) if upload.fields.get("tags", "").strip() else []
        if len(tags) > _MOST_TAGS:
            raise InvalidInput(f"the wheel has {len(tags)} tags; {_MOST_TAGS} are accepted")
        replace = _flag(upload.fields.get("replace", ""))
        change.target_id = upload.name.file_name
        change.tenant_id = owner_of_upload(who, upload.fields.get("tenant", ""))
        content = await inspected(upload, largest)
        async with here.room.hold(upload.size + upload.size // _PIECES + _BESIDE):
            entry = await here.wheels.put(
                upload.name.file_name,
                upload.file,
                tags,
                requires_python=content.requires_python,
                tenant_id=change.tenant_id,
                claims=content.claims,
            )
    change.details = {"tags": entry.tags, "sha256_hex": entry.sha256_hex}
    await _remember(here, who, request, WheelAction.UPLOAD, entry, replace=replace)
    return entry


@router.get("/wheels/history", responses=refusals(StoreUnavailable))
async def list_history(
    here: Here,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    wheel_name: Annotated[str | None, Query(max_length=_LONGEST_NAME)] = None,
    action: WheelDeed = None,
) -> list[WheelEvent]:
    """List what happened to wheels, the newest first."""
    events = await here.wheel_history.list(
        limit=limit, wheel_name=read_file_name(wheel_name or ""), action=action, tenants=visible_tenants(who)
    )
    return [_shown_to(who, event) for event in events]


@router.get(
    "/wheels/{name}",
    response_class=Bytes,
    responses=refusals(WheelNotFound, WheelDamaged, StoreUnavailable),
)
async def download_wheel(here: Here, who: Who, name: str, tenant: OfTenant = None) -> StreamingResponse:
    """Give a wheel's bytes. If they are damaged, the answer is an error, or for a large wheel breaks off."""
    entry = await find_wheel(here, who, name, tenant)
    blocks = here.wheels.stream(entry)
    first = await anext(blocks)

    async def body() -> AsyncIterator[bytes]:
        yield first
        try:
            async for block in blocks:
                yield block
        except PyocoError as error:
            # Too late for an error's answer: less than the announced length tells the client.
            log.error("a download breaks off", wheel=entry.name, reason=error.message)

    headers = {
        "Content-Disposition": f"attachment; {_file_name(entry.name)}",
        "Content-Length": str(entry.size_bytes),
        "ETag": f'"{entry.sha256_hex}"',
    }
    return StreamingResponse(body(), media_type="application/octet-stream", headers=headers)


@router.delete("/wheels/{name}", responses=refusals(WheelNotFound, *WRITES))
@changes(AuditAction.WHEEL_DELETE, "name")
async def delete_wheel(
    here: Here, who: Who, change: Noted, request: Request, name: str, tenant: OfTenant = None
) -> dict[str, Any]:
    """Delete a wheel; workers stop using it when they next look."""
    found = await find_wheel(here, who, name, tenant)
    check_may_change(who, found.tenant_id)
    change.tenant_id = found.tenant_id
    entry = await here.wheels.remove(found.name, found.tenant_id)
    await _remember(here, who, request, WheelAction.DELETE, entry)
    return {"name": entry.name, "deleted": True}


@router.post("/wheels/{name}/pin", responses=refusals(WheelNotFound, *WRITES))
@changes(AuditAction.WHEEL_PIN, "name")
async def pin_wheel(
    here: Here, who: Who, change: Noted, request: Request, name: str, tenant: OfTenant = None
) -> dict[str, Any]:
    """Make a stored version the one that its workers use; ``name`` is ``NAME==VERSION`` or a file name."""
    entries, chosen = await _chosen(here, who, name, tenant)
    owner = change.tenant_id = chosen[0].tenant_id
    now = time.time()
    pinned = [await here.wheels.pin(entry.name, now, tenant_id=owner) for entry in chosen]
    unpinned = [await here.wheels.unpin(entry.name, tenant_id=owner) for entry in pins_replaced(entries, pinned)]
    for entry in pinned:
        await _remember(here, who, request, WheelAction.PIN, entry)
    names = {"pinned": [entry.name for entry in pinned], "unpinned": [entry.name for entry in unpinned]}
    change.details = dict(names)
    for entry in unpinned:
        await _remember(here, who, request, WheelAction.UNPIN, entry)
    return {
        "package": pinned[0].package,
        "version": pinned[0].version,
        **names,
    }


@router.delete("/wheels/{name}/pin", responses=refusals(WheelNotFound, *WRITES))
@changes(AuditAction.WHEEL_UNPIN, "name")
async def unpin_wheel(
    here: Here, who: Who, change: Noted, request: Request, name: str, tenant: OfTenant = None
) -> dict[str, Any]:
    """Take pins back; ``name`` is a package, ``NAME==VERSION`` or a file name."""
    _, chosen = await _chosen(here, who, name, tenant, package_alone=True)
    owner = change.tenant_id = chosen[0].tenant_id
    unpinned = [await here.wheels.unpin(entry.name, tenant_id=owner) for entry in chosen if entry.pinned_at is not None]
    for entry in unpinned:
        await _remember(here, who, request, WheelAction.UNPIN, entry)
    change.happened = bool(unpinned)
    change.details = {"unpinned": [entry.name for entry in unpinned]}
    return {"package": chosen[0].package, **change.details}


async def _chosen(
    here: Gateway, who: Caller, name: str, asked: str | None, *, package_alone: bool = False
) -> tuple[list[WheelEntry], list[WheelEntry]]:
    """Return the wheels of the tenant that is meant, or that all share, and those among them that a pin names.

    Raises:
        WheelNotFound: none is named.
        RoleTooLow: the caller may not change them.
    """
    everything = await here.wheels.list()
    for tenant_id in scopes(who, asked):
        entries = [entry for entry in everything if entry.tenant_id == tenant_id]
        if chosen := named_by(entries, name, package_alone=package_alone):
            check_may_change(who, tenant_id)
            return entries, chosen
    named_by([], name, package_alone=package_alone)  # what is no name at all is said first, whoever asks
    meant = visible(who, everything)
    if asked is not None:
        meant = [entry for entry in meant if entry.tenant_id in scopes(who, asked)]
    raise _not_stored(meant, name)


async def _remember(
    here: Gateway, who: Caller, request: Request, action: WheelAction, entry: WheelEntry, replace: bool | None = None
) -> None:
    event = WheelEvent(
        action=action, wheel_name=entry.name, tags=entry.tags, size_bytes=entry.size_bytes,
        sha256_hex=entry.sha256_hex, replace=replace, actor=actor_of(who), source=source_of(request),
        tenant_id=entry.tenant_id,
    )  # fmt: skip
    await here.wheel_history.add(event)


def _shown_to(who: Caller, event: WheelEvent) -> WheelEvent:
    """Return an event; who did it and from where is for the same tenant and for operators."""
    if who.operates or (event.actor.tenant_id is not None and who.sees(event.actor.tenant_id)):
        return event
    return event.model_copy(update={"actor": Actor(), "source": Source()})


def _not_stored(entries: list[WheelEntry], name: str) -> WheelNotFound:
    package = named_by(entries, name.partition("==")[0], package_alone=True)
    shown = [f"{entry.package}=={entry.version}" + (f" of {entry.tenant_id}" if entry.tenant_id else "")
             for entry in package[:20]]  # fmt: skip
    hint = f"Stored: {', '.join(shown)}" if shown else ""
    return WheelNotFound(f"no wheel {name[:_LONGEST_NAME]!r} is stored", hint=hint)


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word and word not in _YES | _NO:
        raise InvalidInput(f"replace is {text[:80]!r}", hint="Send true or false; it has no effect.")
    return word not in _NO


def _file_name(name: str) -> str:
    """Name a download as RFC 6266 wants it."""
    if quote(name, safe="+!~ ") == name:
        return f'filename="{name}"'
    return f"filename*=UTF-8''{quote(name, safe='')}"
