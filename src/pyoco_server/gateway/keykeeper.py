"""The gateway's API keys: where they are, and the tasks that keep them known."""

import asyncio

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.authenticator import Authenticator
from pyoco_server.gateway.keyring import KeyRing
from pyoco_server.settings import Settings
from pyoco_server.store.connection import Connection
from pyoco_server.store.feed import BucketFeed
from pyoco_server.store.keys import KeyStore
from pyoco_server.waiting import first_event

log = structlog.get_logger(__name__)

_RETRY_SEC = 0.5
_CONNECTING_SEC = 0.05
_RESTART_SEC = 2.0
_LOOK_AGAIN_SEC = 60.0
_STOP_SEC = 5.0


class KeyKeeper:
    """Keeps the keys known, where requests need them.

    Args:
        settings: Whether they do, and where the keys are.
        connection: The gateway's connection to NATS; the keys may lie behind another one.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._own: Connection | None = None
        if settings.http_auth_mode == "api_key":
            settings = settings.with_local_signer()
        if settings.http_auth_mode == "api_key" and settings.keys_apart:
            self._own = Connection(settings, "pyoco-server:keys", target=settings.keys_target())
        self._connection = self._own or connection
        self.store = KeyStore(self._connection)
        ring = KeyRing(self.store)
        self.auth = Authenticator(settings, ring)
        self.feed = BucketFeed(
            self._connection, settings.auth_kv_bucket, on_changes=ring.apply, on_reset=ring.clear
        )  # fmt: skip
        self._look = asyncio.Event()

    @property
    def are_apart(self) -> bool:
        """Whether the keys lie behind a connection of their own."""
        return self._own is not None

    @property
    def problem(self) -> str | None:
        """Why keys cannot be looked up now; ``None`` when they can, or need not be."""
        if not self.auth.is_on or self.feed.caught_up.is_set():
            return None
        if self._own is not None and not self._own.is_up:
            refused = self._own.refused
            return f"the API keys: {refused.message if refused else f'NATS is not reachable at {self._own.shown_url}'}"
        return "the API keys are still being read"

    async def start(self) -> None:
        """Begin to connect, where keys have a connection of their own.

        Raises:
            InvalidSetting: a file with a credential or a certificate is missing, or holds something else.
        """
        if self._own is not None:
            await self._own.start()
        self._connection.reconnected.append(self._look_again)

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep the keys known until ``stopping`` is set."""
        if not self.auth.is_on:
            return
        parts = [asyncio.create_task(part(stopping)) for part in (self._keep_bucket, self._follow, self._tell)]
        await stopping.wait()
        self.feed.stop()
        _, late = await asyncio.wait(parts, timeout=_STOP_SEC)
        for task in late:
            task.cancel()
        if self._own is not None:
            await self._own.close()

    async def _keep_bucket(self, stopping: asyncio.Event) -> None:
        """Make the bucket if it is missing, also after each return of NATS: the store may be a fresh one."""
        while not stopping.is_set():
            self._look.clear()
            pause = _LOOK_AGAIN_SEC
            try:
                await self.store.ensure()
            except StoreUnavailable as error:
                log.debug("the bucket of API keys cannot be looked at now", reason=error.message)
                pause = _RETRY_SEC if self._connection.is_up else _CONNECTING_SEC
            await first_event(pause, self._look, stopping)

    async def _look_again(self) -> None:
        self._look.set()

    async def _follow(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await self.feed.run()
            except Exception:  # a bug: it is logged, and keys are read one by one meanwhile
                log.exception("following the API keys failed; starting over")
                self.feed.caught_up.clear()
                self.feed.revision = 0
                await first_event(_RESTART_SEC, stopping)

    async def _tell(self, stopping: asyncio.Event) -> None:
        while not self.feed.caught_up.is_set() and not stopping.is_set():
            await first_event(_LOOK_AGAIN_SEC, self.feed.caught_up, stopping)
        if not stopping.is_set():
            self.auth.tell_of_keys()
