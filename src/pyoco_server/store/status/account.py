"""How much of NATS's room is taken, as NATS tells a client."""

import json
from dataclasses import dataclass
from typing import Any

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.nats.connection import Connection


@dataclass(frozen=True)
class Account:
    """What our account takes of its storage, in bytes."""

    used: int
    reserved: int
    """Set aside for streams with a bound by size."""
    limit: int | None
    """What it may take; ``None`` where it has no limit of its own, but shares the server's."""


async def read_account(connection: Connection) -> Account:
    """Ask NATS.

    Raises:
        StoreUnavailable: NATS is away, or refuses.
    """
    what = "looking at the room in NATS"
    told = json.loads((await connection.request("$JS.API.INFO", what=what)).data)
    if "error" in told:
        raise StoreUnavailable(f"{what}: NATS answered {told['error'].get('description') or told['error']}")
    # An account may have limits for each number of replicas instead: the fullest one is what matters.
    tiers = [_read(tier) for tier in (told.get("tiers") or {}).values()]
    return max(tiers, key=lambda tier: tier.used / tier.limit if tier.limit else 0.0, default=_read(told))


def _read(told: dict[str, Any]) -> Account:
    limit = (told.get("limits") or {}).get("max_storage") or 0
    return Account(told.get("storage", 0), told.get("reserved_storage", 0), limit if limit > 0 else None)
