"""One line of pulling from a consumer: a subscription of its own and the requests sent through it.

nats-py's own ``fetch`` can swallow a message when it is cancelled, and cannot wait on several consumers at once.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from pyoco_server.store.nats.connection import Connection

BEAT = 100
NO_MESSAGES = 404
TIMED_OUT = 408
CONFLICT = 409
NO_RESPONDERS = 503


class PullLine:
    """Pull requests to one consumer.

    Args:
        connection: The connection.
        stream: The stream's name.
        consumer: The consumer's name.
        on_message: Called for each message, on the event loop.
        on_end: Called with the status code when a request ended without filling its batch.
        on_beat: Called when the server tells that an open request is still known to it.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        on_message: Callable[[Msg], None],
        on_end: Callable[[int, str], None],
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._on_message = on_message
        self._on_end = on_end
        self._on_beat = on_beat
        self._subscription: Subscription | None = None
        self._inbox = ""

    async def request(self, *, batch: int, expires: float | None, beat: float | None = None) -> None:
        """Ask for up to ``batch`` messages.

        Args:
            batch: How many messages at most.
            expires: Seconds that the server may wait for them; ``None`` asks for what is there now.
            beat: Seconds between two signs of life of an open request; at most half of ``expires``.

        Raises:
            StoreUnavailable: NATS is away.
        """
        client = self._connection.client
        with self._connection.errors("pulling"):
            if self._subscription is None:
                self._inbox = client.new_inbox()
                self._subscription = await client.subscribe(self._inbox, cb=self._receive)
            wish: dict[str, int | bool] = {"batch": batch}
            if expires is None:
                wish["no_wait"] = True
            else:
                wish["expires"] = int(expires * 1e9)
                if beat is not None:
                    wish["idle_heartbeat"] = int(beat * 1e9)
            await client.publish(self._next, json.dumps(wish).encode(), reply=self._inbox)

    async def withdraw(self) -> None:
        """Take open requests back. Messages already on their way still reach ``on_message``."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            # Drain sends UNSUB, which ends the request on the server, then waits for what was sent before it.
            with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
                await asyncio.wait_for(subscription.drain(), 3)  # type: ignore[no-untyped-call]

    async def _receive(self, message: Msg) -> None:
        if message.headers and "Status" in message.headers and not message.data:
            status = int(message.headers["Status"])
            if status == BEAT:
                self._on_beat()
            else:
                self._on_end(status, message.headers.get("Description", ""))
        else:
            self._on_message(message)
