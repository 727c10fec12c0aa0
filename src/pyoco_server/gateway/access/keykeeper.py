"""The gateway's API keys: where they are, and the tasks that keep them known."""

from pyoco_server.gateway.access.authenticator import Authenticator
from pyoco_server.gateway.access.keyring import KeyRing
from pyoco_server.process.supervision import Supervisor
from pyoco_server.settings.environment import Settings
from pyoco_server.store.keys import KeyStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.feed import BucketFeed
from pyoco_server.store.nats.stream_keeper import StreamKeeper


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
        self.auth = Authenticator(settings, ring, self.store)
        self.feed = BucketFeed(
            self._connection, settings.auth_kv_bucket, on_changes=ring.apply, on_reset=ring.clear
        )  # fmt: skip
        self._bucket = StreamKeeper(self._connection, self.store.ensure)

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

    def begin(self, supervisor: Supervisor) -> None:
        """Keep the keys known from now on, where keys are asked for."""
        if self.auth.is_on:
            supervisor.rounds("key-bucket", self._bucket, self._bucket.look)
            supervisor.keep("keys", self._follow)
            supervisor.once("key-notice", self._tell, after=self.feed.caught_up)

    async def close(self) -> None:
        """Close the connection that keys have for themselves, if there is one."""
        await self.auth.existing.close()
        if self._own is not None:
            await self._own.close()

    async def _tell(self) -> None:
        self.auth.tell_of_keys()

    async def _follow(self) -> None:
        try:
            await self.feed.run()
        except BaseException:  # a bug, a cancel: it is told of, and keys are read one by one meanwhile
            self.feed.caught_up.clear()
            self.feed.revision = 0
            raise
