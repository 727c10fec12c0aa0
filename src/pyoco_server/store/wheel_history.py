"""The history of wheels: a bucket whose entries expire, read from its end."""

import base64

import structlog
from pydantic import ValidationError

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.wheel_event import WheelAction, WheelEvent
from pyoco_server.store.bucket import Bucket, is_removal
from pyoco_server.store.connection import Connection
from pyoco_server.store.direct import DirectReader

log = structlog.get_logger(__name__)

_TRIES = 3


class WheelHistory:
    """What happened to wheels.

    A key is ``<action>.<wheel's name in base64>.<event id>``, so that both can be asked for.
    """

    def __init__(self, connection: Connection) -> None:
        self._bucket = Bucket(connection, connection.settings.wheel_history_kv_bucket)
        self._reader = DirectReader(connection, self._bucket.stream)

    async def add(self, event: WheelEvent) -> None:
        """Store an event. What it tells has happened already: if it cannot be stored, the log has it."""
        key = f"{event.action.value}.{_token(event.wheel_name)}.{event.event_id}"
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

    async def list(self, *, limit: int, wheel_name: str | None, action: WheelAction | None) -> list[WheelEvent]:
        """Give events, the newest first.

        Args:
            limit: How many at most.
            wheel_name: Only of this wheel.
            action: Only of this kind.

        Raises:
            StoreUnavailable: NATS is away.
        """
        key = ">"  # other programs may have chosen other keys
        if wheel_name is not None or action is not None:
            key = f"{action.value if action else '*'}.{'*' if wheel_name is None else _token(wheel_name)}.*"
        messages = await self._reader.newest(before=None, subject=self._bucket.subject(key), limit=limit)
        events = []
        for message in messages:
            if is_removal(message.headers):
                continue  # other programs may have made the bucket in another way
            try:
                events.append(WheelEvent.model_validate_json(message.data))
            except ValidationError:
                log.warning("an event in the history of wheels cannot be read", subject=message.subject)
        return events


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode("utf-8", "replace")).decode().rstrip("=")
