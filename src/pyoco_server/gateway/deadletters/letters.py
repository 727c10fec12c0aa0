"""Dead letters as a caller may see them."""

from typing import TYPE_CHECKING

from pyoco_server.errors import DeadLetterNotFound
from pyoco_server.gateway.index.json_fields import parse
from pyoco_server.model.access import Caller, tenant_of
from pyoco_server.model.deadletter import DeadLetterReason
from pyoco_server.model.run import is_run_id
from pyoco_server.store.deadletters import StoredLetter

if TYPE_CHECKING:
    from pyoco_server.gateway.gateway import Gateway

_LOOKED_AT = 1000
"""Letters that one request looks at, where most of them are of other tenants or reasons."""
_AT_ONCE = 100
_PAGES_AFTER_END = 8
"""So many pages of letters after a run's end are looked at for its own."""


async def seen(here: "Gateway", who: Caller, letters: list[StoredLetter]) -> list[StoredLetter]:
    """Give those letters that a caller may see.

    One that names no tenant belongs to the tenant of its run, if there is one.

    Raises:
        StoreUnavailable: the index, which knows the runs' tenants, is still being built.
    """
    if who.tenants is None:
        return letters
    owners = await _owners(here, letters)
    return [letter for letter, owner in zip(letters, owners, strict=True) if who.sees(owner)]


async def owner(here: "Gateway", letter: StoredLetter) -> str | None:
    """Tell the tenant of a letter; ``None`` if it belongs to none.

    Raises:
        StoreUnavailable: the index is still being built.
    """
    return (await _owners(here, [letter]))[0]


async def _owners(here: "Gateway", letters: list[StoredLetter]) -> list[str | None]:
    bodies = [parse(letter.raw) or {} for letter in letters]
    runs = [body.get("run_id") for body in bodies]
    known = (await here.fresh_index()).tenants_of(run_id for run_id in runs if isinstance(run_id, str))
    return [tenant_of(body.get("tenant_id")) or known.get(str(body.get("run_id"))) for body in bodies]


async def page(
    here: "Gateway",
    who: Caller,
    *,
    tag: str | None,
    before: int | None,
    limit: int,
    reason: DeadLetterReason | None = None,
) -> tuple[list[StoredLetter], int | None]:
    """Give letters, the newest first, and the id before which to go on; ``None`` at the end.

    There may be fewer than ``limit``, or none, and still more to come: one request looks at a bounded number.

    Args:
        here: The gateway.
        who: Who asks.
        tag: Only of this tag.
        before: Only letters with a lower id.
        limit: How many at most.
        reason: Only those.

    Raises:
        StoreUnavailable: NATS is away, or the index is still being built.
    """
    found: list[StoredLetter] = []
    looked_at = 0
    while True:
        wanted = limit + 1 - len(found)
        size = wanted if who.tenants is None and reason is None else max(wanted, _AT_ONCE)
        some = await here.letters.list(tag=tag, before=before, limit=size)
        found += await seen(here, who, [letter for letter in some if _has(letter, reason)])
        if len(found) > limit:
            return found[:limit], found[limit - 1].id
        if len(some) < size:
            return found, None
        before, looked_at = some[-1].id, looked_at + size
        if looked_at >= _LOOKED_AT:
            return found, before


async def of_run(here: "Gateway", who: Caller, run_id: str) -> list[StoredLetter]:
    """Give the letter that a run has left, if it is still there.

    One that came long after the run's end, for want of a worker, is not found behind hundreds of others of its tag.

    Raises:
        StoreUnavailable: NATS is away, or the index is still being built.
    """
    stored = await here.runs.get(run_id, salvaged=True) if is_run_id(run_id) else None
    if stored is None or stored.stored_at is None or not who.sees(stored.record.tenant_id):
        return []
    async for letter in here.letters.after_end(stored.stored_at, stored.record.tag, _PAGES_AFTER_END):
        if (parse(letter.raw) or {}).get("run_id") == run_id:
            return await seen(here, who, [letter])
    return []


def _has(letter: StoredLetter, reason: DeadLetterReason | None) -> bool:
    return reason is None or (parse(letter.raw) or {}).get("reason") == reason.value


async def read(here: "Gateway", who: Caller, letter_id: int) -> StoredLetter:
    """Read a letter.

    Raises:
        DeadLetterNotFound: there is none with this id (any more, or for this caller).
    """
    letter = await here.letters.get(letter_id)
    if letter is None or not await seen(here, who, [letter]):
        raise not_found(letter_id)
    return letter


def not_found(letter_id: int) -> DeadLetterNotFound:
    """Make the answer for a letter that is not there, or not for this caller."""
    return DeadLetterNotFound(f"there is no dead letter {letter_id}")
