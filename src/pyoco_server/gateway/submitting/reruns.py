"""New runs out of old ones: a run done once more, a dead letter replayed."""

import hashlib
import uuid
from typing import Any

from pydantic import ValidationError

from pyoco_server.errors import InvalidInput, KeyReused, NotReplayable, RunNotFound, TooLarge
from pyoco_server.gateway.access.client import Client
from pyoco_server.gateway.deadletters import letters
from pyoco_server.gateway.gateway import Gateway
from pyoco_server.gateway.index.json_fields import parse, tenant_of_unreadable
from pyoco_server.model import idempotency
from pyoco_server.model.access import Caller
from pyoco_server.model.run import RunRecord, again, is_run_id, new_run_id
from pyoco_server.model.tags import check_tag
from pyoco_server.store.deadletters import StoredLetter
from pyoco_server.store.runs import StoredRun
from pyoco_server.store.submissions import Submission

_REPLAYS = uuid.UUID("6f0d2c1e-93f5-4a5a-9d0f-2f1f1c6f8b11")
"""Namespace of the ids of replayed runs."""
_LETTER_FIELDS = (
    "flow_name", "params", "tags", "timeout_sec", "max_attempts", "tenant_id", "api_key_id", "workflow_yaml_sha256",
    "workflow_yaml_bytes",
)  # fmt: skip


async def rerun(here: Gateway, who: Caller, run_id: str, key: str | None) -> Submission:
    """Start a new run of an old one's flow and params.

    Args:
        here: The gateway.
        who: Whose the new run is; without authentication it is whose the old one was.
        run_id: The old run.
        key: An idempotency key; the same one gives the same new run.

    Raises:
        RunNotFound: there is no such run (for this caller).
        NotReplayable: its flow.yaml is not in the store any more, or its record cannot be read.
        KeyReused: the key belongs to another request.
        StoreUnavailable: NATS is away; no run was made, or with a key asking again finds it.
    """
    stored = await here.runs.get(run_id, salvaged=True) if is_run_id(run_id) else None
    if stored is None or not who.sees(_tenant(here, stored)):
        raise RunNotFound
    if stored.unreadable:
        raise NotReplayable(f"run {run_id} cannot be run again: its record cannot be read: {stored.unreadable.why}")
    record = _owned(who, again(stored.record, new_run_id()))
    if not stored.record.attempt:  # a worker of the existing system may have had it, which writes another name
        record = record.evolve(flow_name=here.index.last_known(run_id).get("flow_name") or record.flow_name)
    if key is not None:
        new_id, digest = idempotency.run_id_of(record.tenant_id, key), idempotency.digest(rerun_of=run_id)
        record = record.evolve(run_id=new_id, idempotency_key=key, submission_digest=digest)
    await _check(here, record, f"run {run_id} cannot be run again")
    return await _start(here, record)


async def replay(here: Gateway, who: Caller, letter_id: int, client: Client) -> Submission:
    """Start a new run of a dead letter's flow and params, and take the letter out.

    The new run's id follows from the letter's cause. So two requests at once, and a request made again after a crash
    between the two steps, find the run that the first one made.

    Args:
        here: The gateway.
        who: Whose the new run is.
        letter_id: The letter.
        client: Who waits for it.

    Raises:
        DeadLetterNotFound: there is no such letter (any more, or for this caller).
        NotReplayable: neither the letter nor the run's record holds what a new run needs.
        StoreUnavailable: NATS is away; asking again is safe.
    """
    letter = await letters.read(here, who, letter_id)
    trouble = f"dead letter {letter_id} cannot be replayed"
    body = parse(letter.raw) or {}
    run_id = body.get("run_id")
    stored = await here.runs.get(run_id) if isinstance(run_id, str) and is_run_id(run_id) else None
    if stored is not None and not who.sees(stored.record.tenant_id):
        raise letters.not_found(letter_id)
    old = stored.record if stored else _run_of_letter(letter, body, trouble)
    if body.get("workflow_yaml"):
        old = await _store_flow(here, old, body["workflow_yaml"], trouble, client)
    elif "workflow_yaml" in _omitted(body):
        raise NotReplayable(f"{trouble}: the text of its flow was too large for the letter", hint=_ANEW)
    cause = letter.key or hashlib.sha256(letter.raw).hexdigest()
    # With a key of its own the run is made once and never taken back: another request may have answered with it.
    record = _owned(who, again(old, str(uuid.uuid5(_REPLAYS, cause)))).evolve(idempotency_key=f"replay of {cause}")
    await _check(here, record, trouble)
    try:
        made = await _start(here, record)
    except KeyReused:  # an admin of another tenant replays this moment what belonged to none
        raise letters.not_found(letter_id) from None
    await here.letters.remove(letter_id)
    return made


def _tenant(here: Gateway, stored: StoredRun) -> str | None:
    if stored.unreadable:
        return tenant_of_unreadable(stored.unreadable, here.index.last_known(stored.record.run_id))
    return stored.record.tenant_id


def _owned(who: Caller, record: RunRecord) -> RunRecord:
    """Give a new run its owner; without authentication it keeps the old one's tenant."""
    return record.evolve(tenant_id=who.tenant_id or record.tenant_id, api_key_id=who.key_id)


_ANEW = "Submit the flow anew; then take the letter out with: pyoco-client dlq delete <id>"


def _run_of_letter(letter: StoredLetter, body: dict[str, Any], trouble: str) -> RunRecord:
    """Give the run as its letter tells it: its record is gone, or never was."""
    required = {"flow_name": str, "params": dict}
    missing = [field for field, kind in required.items() if not isinstance(body.get(field), kind)]
    missing += [field for field in _omitted(body) if field in _LETTER_FIELDS and field not in missing]
    if missing:
        raise NotReplayable(f"{trouble}: there is no record of its run, and it holds no {' and no '.join(missing)}",
                            hint=_ANEW)  # fmt: skip
    known = {field: body[field] for field in _LETTER_FIELDS if body.get(field) is not None}
    try:
        return RunRecord.model_validate({"run_id": body.get("run_id") or "", "tag": letter.tag, **known})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotReplayable(f"{trouble}: {where}: {first['msg']}", hint=_ANEW) from None


def _omitted(body: dict[str, Any]) -> list[Any]:
    omitted = body.get("omitted")
    return omitted if isinstance(omitted, list) else []


async def _store_flow(here: Gateway, old: RunRecord, text: Any, trouble: str, client: Client) -> RunRecord:
    """Store the flow's text that a job of another program had with it."""
    try:
        checked = await here.checker.check(text.encode() if isinstance(text, str) else b"", client)
    except (InvalidInput, TooLarge) as error:
        raise NotReplayable(f"{trouble}: {error.message}", hint=error.hint) from None
    await here.flows.put(text.encode(), checked.sha256)
    return old.evolve(
        workflow_yaml_sha256=checked.sha256, workflow_yaml_bytes=checked.size_bytes,
        own_workers_only=checked.own_workers_only,
    )  # fmt: skip


async def _check(here: Gateway, record: RunRecord, trouble: str) -> None:
    """Refuse what no worker could run."""
    try:
        check_tag(record.tag)
    except InvalidInput as error:
        raise NotReplayable(f"{trouble}: {error.message}", hint=error.hint) from None
    sha256 = record.workflow_yaml_sha256
    if sha256 is not None and not await here.flows.keep(sha256):
        raise NotReplayable(f"{trouble}: the text of its flow.yaml ({sha256[:12]}…) is not in the store", hint=_ANEW)


async def _start(here: Gateway, record: RunRecord) -> Submission:
    made = await here.submissions.submit(record)
    here.show_at_once(made, record.to_json())
    return made
