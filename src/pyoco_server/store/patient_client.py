"""nats-py's client, but for two things: it never gives up, and it sends nothing in the clear that must not be."""

import base64
import ssl
from typing import Any

import nkeys
from nats.aio.client import Client
from nats.errors import Error
from nats.protocol.parser import STALE_CONNECTION

from pyoco_server.errors import InvalidSetting
from pyoco_server.nats_settings import NatsTarget


class FileUnusable(Error):
    """A file that is needed to connect cannot be used now; it is read again with the next try."""


class NotEncrypted(Error):
    """The server does not ask for TLS, and we must not speak without."""


class PatientClient(Client):
    """A client of NATS.

    Args:
        target: Where it connects, and as whom.
    """

    def __init__(self, target: NatsTarget) -> None:
        super().__init__()
        self._target = target

    async def connect_for_ever(self, **options: Any) -> None:
        """Connect, for as long as it takes, and come back after every absence.

        Args:
            options: More options of ``connect``.
        """
        target = self._target
        if target.password is not None:
            options |= {"user": target.user, "password": target.password.get_secret_value()}
        elif target.token is not None:
            options["token"] = target.token.get_secret_value()
        elif target.creds is not None:
            # Read for each connection: such a file is replaced before its credential expires.
            options |= {"user_jwt_cb": lambda: self._creds()[0], "signature_cb": self._sign}
        elif target.nkey_seed is not None:
            options["nkeys_seed_str"] = target.read_seed().decode()
        await self.connect(list(target.servers), max_reconnect_attempts=-1, inbox_prefix=target.inbox_prefix, **options)

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """What to encrypt with; read for each connection, for certificates are replaced too."""
        try:
            return self._target.tls_context() or ssl.create_default_context()
        except InvalidSetting as error:
            raise FileUnusable(error.message) from None

    def _creds(self) -> tuple[bytearray, bytearray]:
        try:
            return self._target.read_creds()
        except InvalidSetting as error:
            raise FileUnusable(error.message) from None

    def _sign(self, nonce: str) -> bytes:
        try:
            pair = nkeys.from_seed(self._creds()[1])
            return base64.b64encode(pair.sign(nonce.encode()))
        except (nkeys.NkeysError, ValueError) as error:
            raise FileUnusable(f"the seed in {self._target.variables} cannot be used: {error!r}") from None

    def _connect_command(self) -> bytes:
        """Give what is sent first, with the credential in it."""
        if self._target.wants_tls and not self._server_info.get("tls_required"):
            raise NotEncrypted("the server does not ask for TLS")
        return bytes(super()._connect_command())

    async def _process_err(self, err_msg: str) -> None:
        """Take in what the server complains of.

        nats-py closes for good then, also after a credential expired or was one connection too many. Where the server
        means it, it ends the connection itself, and that leads to a new one.
        """
        if STALE_CONNECTION in err_msg:
            await super()._process_err(err_msg)
        else:
            await self._error_cb(Error("nats: " + err_msg.strip("'")))
