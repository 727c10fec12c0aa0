"""Dead letters as a caller may see them."""

from typing import TYPE_CHECKING

from pyoco_server.errors import DeadLetterNotFound
from pyoco_server.gateway.records import parse
from pyoco_server.model.access import Caller, tenant_of
from pyoco_server.store.deadletters import StoredLetter

if TYPE_CHECKING:
    from pyoco_server.gateway.state import Gateway

_LOOKED_AT = 1000
"""Letters that one request looks at, where most of them are of other tenants."""
_AT_ONCE = 100


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
    here: "Gateway", who: Caller, *, tag: str | None, before: int | None, limit: int
) -> tuple[list[StoredLetter], int | None]:
    """Give letters, the newest first, and the id before which to go on; ``None`` at the end.

    There may be fewer than ``limit``, or none, and still more to come: one request looks at a bounded number.

    Args:
        here: The gateway.
        who: Who asks.
        tag: Only of this tag.
        before: Only letters with a lower id.
        limit: How many at most.

    Raises:
        StoreUnavailable: NATS is away, or the index is still being built.
    """
    found: list[StoredLetter] = []
    looked_at = 0
    while True:
        wanted = limit + 1 - len(found)
        size = wanted if who.tenants is None else max(wanted, _AT_ONCE)
        some = await here.letters.list(tag=tag, before=before, limit=size)
        found += await seen(here, who, some)
        if len(found) > limit:
            return found[:limit], found[limit - 1].id
        if len(some) < size:
            return found, None
        before, looked_at = some[-1].id, looked_at + size
        if looked_at >= _LOOKED_AT:
            return found, before


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
