"""Submitting runs: everything is checked here, so that what was answered with a run_id can be run."""

import re
import time
from typing import Annotated, Any

import pydantic_core
from fastapi import APIRouter, File, Form, Header, Request, UploadFile
from pydantic import BaseModel, Field

from pyoco_server.errors import InvalidFlow, InvalidInput, KeyReused, StoreFull, TooLarge
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.access.client import Client
from pyoco_server.gateway.audit.middleware import Change, Noted, changes
from pyoco_server.gateway.gateway import Gateway, Here
from pyoco_server.gateway.http.answers import WRITES, refusals
from pyoco_server.gateway.http.complaints import kind_of
from pyoco_server.gateway.http.strict_body import StrictRoute
from pyoco_server.model import idempotency
from pyoco_server.model.access import Caller
from pyoco_server.model.audit import AuditAction
from pyoco_server.model.run import RunRecord, TaskStatus, new_run_id
from pyoco_server.model.tags import check_tag
from pyoco_server.model.text.clean import clean_json
from pyoco_server.model.text.jsontext import check_finite
from pyoco_server.store.nats import deadline

router = APIRouter(tags=["runs"], route_class=StrictRoute)

_MAX_TAGS = 64
_LEVELS_LEFT = 32
"""Levels of nesting that records and messages may put around params."""
_ENVELOPE = 4096
"""What subject and headers take of NATS's payload limit."""

_FILE_NAME = re.compile(r"[@<]?[^\n:{}\[\]]+\.(ya?ml|json)")

Name = Annotated[str, Field(min_length=1, max_length=256)]
Timeout = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]
Attempts = Annotated[int | None, Field(ge=1, le=1000)]
KeyHeader = Annotated[str | None, Header(alias="Idempotency-Key")]


class Submission(BaseModel):
    """A run of a flow that the workers' resolver knows."""

    flow_name: Name
    params: dict[str, Any] = Field(default_factory=dict)
    tag: str | None = None
    tags: list[str] = Field(default_factory=list, max_length=_MAX_TAGS)
    timeout_sec: Timeout = None
    max_attempts: Attempts = None
    idempotency_key: str | None = None


class Submitted(BaseModel):
    """The answer: the run exists."""

    run_id: str
    status: str
    created: bool
    """``False`` if an earlier request with the same idempotency key made the run."""


@router.post("/runs", responses=refusals(KeyReused, *WRITES))
@changes(AuditAction.RUN_SUBMIT)
async def submit(here: Here, who: Who, change: Noted, wanted: Submission, key_header: KeyHeader = None) -> Submitted:
    """Submit a run by the name of its flow."""
    tag = check_tag(here.settings.default_tag if wanted.tag is None else wanted.tag)
    return await _submit(
        here,
        who,
        change,
        flow_name=wanted.flow_name,
        params=_storable(here, wanted.params),
        tag=tag,
        tags=wanted.tags or [tag],
        timeout_sec=wanted.timeout_sec,
        max_attempts=wanted.max_attempts,
        key=read_key(wanted.idempotency_key, key_header),
    )


@router.post("/runs/yaml", responses=refusals(KeyReused, InvalidFlow, *WRITES))
@changes(AuditAction.RUN_SUBMIT)
async def submit_yaml(
    here: Here,
    who: Who,
    change: Noted,
    request: Request,
    workflow: Annotated[UploadFile | str, File()],
    flow_name: Annotated[str, Form(max_length=256)],
    tag: Annotated[str | None, Form()] = None,
    params: Annotated[UploadFile | str | None, File()] = None,
    timeout_sec: Annotated[Timeout, Form()] = None,
    max_attempts: Annotated[Attempts, Form()] = None,
    idempotency_key: Annotated[str | None, Form()] = None,
    key_header: KeyHeader = None,
) -> Submitted:
    """Submit a run of a flow.yaml."""
    # An empty field reads as one that was not sent; a key that got lost on its way must not pass in silence.
    empty = (await request.form()).get("idempotency_key") == ""
    key = read_key("" if empty else idempotency_key, key_header)
    if not flow_name.strip():
        raise InvalidInput("flow_name is blank", hint="Give the run a name, such as flow_name=main.")
    tag = check_tag((tag or "").strip() or here.settings.default_tag)
    limit = min(here.settings.workflow_yaml_max_bytes, here.connection.max_payload - _ENVELOPE)
    raw = await _read_part(workflow, "workflow", "flow.yaml", limit)
    client = Client(request)
    checked = await here.checker.check(raw, client)
    given = await _read_params(here, client, await _read_part(params or "", "params", "params.json", limit))
    merged = _storable(here, {**checked.defaults, **given})
    await here.checker.check_params(checked, raw, merged, client)
    with deadline.within(deadline.ANSWER_SEC):
        if key is None:  # before its flow takes room; a run that exists is answered all the same
            await here.room.check(len(raw))
        full = await _put_flow(here, raw, checked.sha256, key)
        here.submissions.jobs.know(checked.sha256, raw)
        return await _submit(
            here,
            who,
            change,
            flow_name=flow_name.strip(),
            params=merged,
            tag=tag,
            tags=[tag],
            timeout_sec=timeout_sec,
            max_attempts=max_attempts,
            key=key,
            full=full,
            tasks=dict.fromkeys(checked.node_names, TaskStatus.PENDING),
            workflow_yaml_sha256=checked.sha256,
            workflow_yaml_bytes=checked.size_bytes,
            own_workers_only=checked.own_workers_only,
        )


async def _put_flow(here: Gateway, raw: bytes, sha256: str, key: str | None) -> StoreFull | None:
    """Store a flow's text; what is returned says that there is no room, and only a run that exists can be answered."""
    try:
        await here.flows.put(raw, sha256)
    except StoreFull as error:
        if key is None:
            raise
        return error
    return None


async def _submit(
    here: Gateway, who: Caller, change: Change, *, key: str | None, full: StoreFull | None = None, **fields: Any
) -> Submitted:
    now = time.time()
    limit = _record_limit(here)
    try:
        for name in ("flow_name", "tags"):
            # Text that JSON cannot carry must not get into a record; sizes are checked on the whole.
            fields[name] = clean_json(fields[name])
        if key is not None:
            asked = {name: fields.get(name) for name in idempotency.DIGESTED}
            fields["submission_digest"] = idempotency.digest(**asked)
        record = RunRecord(
            run_id=new_run_id() if key is None else idempotency.run_id_of(who.tenant_id, key),
            idempotency_key=key, submitted_at=now, heartbeat_at=now, updated_at=now,
            tenant_id=who.tenant_id, api_key_id=who.key_id, **fields,
        )  # fmt: skip
        stored = record.to_json()
        # What cannot be read back, also as some task's input or output, must not be accepted.
        pydantic_core.from_json(b"[" * _LEVELS_LEFT + stored + b"]" * _LEVELS_LEFT)
    except ValueError:  # ValidationError is one too
        raise _too_deep() from None
    if len(stored) > limit:
        raise _too_large("params and tasks", len(stored), limit)
    change.target_id, change.tenant_id = record.run_id, record.tenant_id
    change.details = {"flow_name": record.flow_name, "tag": record.tag}
    with deadline.within(deadline.ANSWER_SEC):
        made = await (here.submissions.repeat(record, full) if full else here.submissions.submit(record))
    change.happened = made.created
    here.show_at_once(made, stored)
    return Submitted(run_id=record.run_id, status=made.stored.record.status.value, created=made.created)


def _storable(here: Gateway, params: dict[str, Any]) -> dict[str, Any]:
    """Return params as a record can carry them.

    Raises:
        InvalidInput: they hold a number that JSON has not, or nest too deeply.
        TooLarge: they take more than a record has room for.
    """
    check_finite(params, "params")
    try:
        # Text that JSON cannot carry must not get into a record.
        found: dict[str, Any] = clean_json(params)
    except ValueError:
        raise _too_deep() from None
    size, limit = len(pydantic_core.to_json(found)), _record_limit(here)
    if size > limit:
        raise _too_large("params", size, limit)
    return found


def _record_limit(here: Gateway) -> int:
    """Return how large a run's first record may be: half is left for what the run adds to it."""
    return min(here.settings.max_run_snapshot_bytes, here.connection.max_payload - _ENVELOPE) // 2


def _too_large(what: str, size: int, limit: int) -> TooLarge:
    return TooLarge(
        f"the run's {what} take {size} bytes; {limit} are accepted",
        hint="Put large data where tasks can fetch it, and pass its address.",
    )


def _too_deep() -> InvalidInput:
    return InvalidInput(
        "params cannot be stored: they nest too deeply", hint="Pass them flatter, or as a text that a task reads."
    )


def read_key(given: str | None, header: str | None) -> str | None:
    """Give the idempotency key of a request, wherever it stands.

    Raises:
        InvalidInput: it is blank or no key, or body and header hold different ones.
    """
    keys = {idempotency.check_key(key) for key in (given, header and _utf8(header)) if key is not None}
    if len(keys) > 1:
        raise InvalidInput(
            "idempotency_key and the header Idempotency-Key differ", hint="Send the key once, in either place."
        )
    return keys.pop() if keys else None


def _utf8(header: str) -> str:
    """Read a header as UTF-8 where it is that, as the body is; the server has read it as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


async def _read_part(part: UploadFile | str, name: str, file: str, limit: int) -> bytes:
    """Read a field of a form, which may be a file (``workflow=@flow.yaml``) or a text (``workflow=<flow.yaml``).

    Raises:
        TooLarge: it has more bytes than are accepted.
        InvalidInput: it is the file's name, and not what is in it.
    """
    raw = part.encode("utf-8", "replace") if isinstance(part, str) else await part.read(limit + 1)
    if len(raw) > limit:
        size = len(raw) if isinstance(part, str) else part.size or "more"
        raise TooLarge(
            f"the {name} has {size} bytes; {limit} are accepted",
            hint="Pass large data as params or files; PYOCO_WORKFLOW_YAML_MAX_BYTES sets the limit.",
        )
    if isinstance(part, str) and _FILE_NAME.fullmatch(part.strip()):
        raise InvalidInput(
            f"{name} is {part.strip()[:80]!r}: the name of a file, and not what is in it",
            hint=f"Send the file: -F {name}=@{file}",
        )
    return raw


async def _read_params(here: Gateway, client: Client, raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        return {}
    try:
        params = await here.checker.read_json(raw, client, params_at=None)
    except ValueError as error:
        raise InvalidInput(f"params is not JSON: {error}", hint='Send an object such as params={"x": 2}.') from None
    if not isinstance(params, dict):
        raise InvalidInput(f"params is {kind_of(params)}, not an object", hint='Send one such as params={"x": 2}.')
    return params
