"""Dead letters: what could not be run to its end, and how to run it again."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel

from pyoco_server.errors import DeadLetterNotFound, KeyReused, NotReplayable, RunNotFound, StoreUnavailable
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.access.client import Client
from pyoco_server.gateway.audit.middleware import Change, Noted, changes
from pyoco_server.gateway.deadletters import letters
from pyoco_server.gateway.gateway import Here
from pyoco_server.gateway.http.answers import WRITES, refusals
from pyoco_server.gateway.http.words import Reason
from pyoco_server.gateway.index.json_fields import parse
from pyoco_server.gateway.routes.submissions import KeyHeader, read_key
from pyoco_server.gateway.submitting import reruns
from pyoco_server.model.audit import AuditAction
from pyoco_server.model.tags import check_tag
from pyoco_server.store.deadletters import StoredLetter
from pyoco_server.store.nats import deadline
from pyoco_server.store.submissions import Submission

router = APIRouter(tags=["dead letters"])

_LARGE_FIELDS = ("params", "payload", "workflow_yaml")
_LAST_ID = 2**63 - 1
_LONGEST_RUN_ID = 128

LetterId = Annotated[int, Path(ge=1, le=_LAST_ID)]


class Again(BaseModel):
    """The answer: the new run exists."""

    run_id: str
    status: str
    rerun_of: str | None
    created: bool
    """``False`` if an earlier request made the run."""


@router.get("/dlq", responses=refusals(StoreUnavailable))
async def list_letters(
    here: Here,
    who: Who,
    tag: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: Annotated[int | None, Query(ge=1, le=_LAST_ID)] = None,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{0,18}$")] = None,
    reason: Reason = None,
    run_id: Annotated[str | None, Query(max_length=_LONGEST_RUN_ID)] = None,
) -> Any:
    """List dead letters, the newest first, without what may be large; with a cursor as a page with ``next_cursor``.

    With ``run_id`` the one that this run has left, and nothing else counts.
    """
    tag = check_tag(tag) if tag else None
    before = int(cursor) if cursor else before
    if run_id:
        found, following = await letters.of_run(here, who, run_id), None
    else:
        found, following = await letters.page(here, who, tag=tag, before=before, limit=limit, reason=reason)
    items = [_shown(letter, whole=False) for letter in found]
    if cursor is None:
        return items
    return {"items": items, "next_cursor": None if following is None else str(following)}


@router.get("/dlq/{letter_id}", responses=refusals(DeadLetterNotFound, StoreUnavailable))
async def get_letter(here: Here, who: Who, letter_id: LetterId) -> dict[str, Any]:
    """Give all of a dead letter."""
    return _shown(await letters.read(here, who, letter_id), whole=True)


@router.post("/dlq/{letter_id}/replay", responses=refusals(DeadLetterNotFound, NotReplayable, *WRITES))
@changes(AuditAction.LETTER_REPLAY, "letter_id")
async def replay(here: Here, who: Who, change: Noted, letter_id: LetterId, request: Request) -> Again:
    """Start a new run of a dead letter's flow and params, and take the letter out."""
    with deadline.within(deadline.ANSWER_SEC):
        return _again(await reruns.replay(here, who, letter_id, Client(request)), change)


@router.delete("/dlq/{letter_id}", responses=refusals(DeadLetterNotFound, StoreUnavailable))
@changes(AuditAction.LETTER_DELETE, "letter_id")
async def delete_letter(here: Here, who: Who, change: Noted, letter_id: LetterId) -> dict[str, Any]:
    """Take a dead letter out."""
    if who.tenants is not None:
        change.tenant_id = await letters.owner(here, await letters.read(here, who, letter_id))
    if not await here.letters.remove(letter_id):
        raise letters.not_found(letter_id)
    return {"id": letter_id, "deleted": True}


@router.post("/runs/{run_id}/rerun", responses=refusals(RunNotFound, NotReplayable, KeyReused, *WRITES))
@changes(AuditAction.RUN_RERUN, "run_id")
async def rerun(here: Here, who: Who, change: Noted, run_id: str, key_header: KeyHeader = None) -> Again:
    """Start a new run of the same flow and params, whatever became of the old one."""
    with deadline.within(deadline.ANSWER_SEC):
        made = await reruns.rerun(here, who, run_id, read_key(None, key_header))
    change.happened = made.created
    return _again(made, change)


def _again(made: Submission, change: Change) -> Again:
    record = made.stored.record
    # The new run's tenant, and not the old one's: whoever may see the new run may know of it.
    change.tenant_id, change.details = record.tenant_id, {"run_id": record.run_id}
    return Again(run_id=record.run_id, status=record.status.value, rerun_of=record.rerun_of, created=made.created)


def _shown(letter: StoredLetter, *, whole: bool) -> dict[str, Any]:
    body = parse(letter.raw) or {"error": "this dead letter cannot be read"}
    if not whole:
        body = {field: value for field, value in body.items() if field not in _LARGE_FIELDS}
    return {**body, "id": letter.id, "tag": letter.tag}
