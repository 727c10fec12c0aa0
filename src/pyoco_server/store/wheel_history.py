"""The history of wheels: a bucket whose entries expire, read from its end."""

import asyncio
import base64
from collections.abc import Collection

import structlog
from pydantic import ValidationError

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.wheels.event import WheelAction, WheelEvent
from pyoco_server.store.nats.bucket import Bucket, is_removal
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import DirectReader

log = structlog.get_logger(__name__)

_TRIES = 3


class WheelHistory:
    """What happened to wheels.

    A key is ``<action>.<wheel's name in base64>.<event id>``, so that both can be asked for, and of a tenant's wheel
    there is ``.<tenant>`` behind it: nobody's list becomes shorter by what others do.
    """

    def __init__(self, connection: Connection) -> None:
        self._bucket = Bucket(connection, connection.settings.wheel_history_kv_bucket)
        self._reader = DirectReader(connection, self._bucket.stream)

    async def add(self, event: WheelEvent) -> None:
        """Store an event. What it tells has happened already: if it cannot be stored, the log has it."""
        key = f"{event.action.value}.{_token(event.wheel_name)}.{event.event_id}"
        if event.tenant_id is not None:
            key += f".{event.tenant_id}"
        for _ in range(_TRIES):
            try:
                await self._bucket.put(key, event.model_dump_json().encode())
            except StoreUnavailable as error:
                reason = error.message
            else:
                return
        log.error(
            "an event is missing in the history of wheels", reason=reason, wheel_event=event.model_dump(mode="json")
        )

    async def list(
        self,
        *,
        limit: int,
        wheel_name: str | None,
        action: WheelAction | None,
        tenants: Collection[str | None] | None = None,
    ) -> list[WheelEvent]:
        """Give events, the newest first.

        Args:
            limit: How many at most.
            wheel_name: Only of this wheel.
            action: Only of this kind.
            tenants: Only of wheels of these, ``None`` for those that all share; of everybody's when not given.

        Raises:
            StoreUnavailable: NATS is away.
        """
        wanted = None
        if wheel_name is not None or action is not None:
            wanted = f"{action.value if action else '*'}.{'*' if wheel_name is None else _token(wheel_name)}"
        found = await asyncio.gather(
            *(
                self._reader.newest(before=None, subject=self._bucket.subject(key), limit=limit)
                for key in _keys(wanted, tenants)
            )
        )
        events = []
        messages = sorted((message for some in found for message in some), key=lambda one: one.seq, reverse=True)
        for message in messages[:limit]:
            if is_removal(message.headers):
                continue  # other programs may have made the bucket in another way
            try:
                event = WheelEvent.model_validate_json(message.data)
            except ValidationError:
                log.warning("an event in the history of wheels cannot be read", subject=message.subject)
                continue
            if tenants is None or event.tenant_id in tenants:  # the key is what was asked for, the event what counts
                events.append(event)
        return events


def _keys(wanted: str | None, tenants: Collection[str | None] | None) -> list[str]:
    """Return what to read.

    Args:
        wanted: The first two parts of the key; ``None`` for any, of whatever other programs have chosen too.
        tenants: As in ``WheelHistory.list``.
    """
    if tenants is None:
        return [">"] if wanted is None else [f"{wanted}.>"]
    shared = ["*", "*.*", "*.*.*"] if wanted is None else [f"{wanted}.*"]
    own = [f"{wanted or '*.*'}.*.{tenant}" for tenant in tenants if tenant is not None]
    return [*(shared if None in tenants else []), *own]


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode("utf-8", "replace")).decode().rstrip("=")
