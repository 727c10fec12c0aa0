"""nats-py's client, but it never gives up, sends nothing in the clear that must not be, and has challenges signed."""

import asyncio
import base64
import ssl
from typing import Any

import nkeys
from nats.aio.client import Client, Srv
from nats.aio.transport import TcpTransport
from nats.errors import Error
from nats.protocol.parser import STALE_CONNECTION

from pyoco_server.errors import InvalidSetting
from pyoco_server.settings.nats import DEFAULT_PORT, NatsTarget
from pyoco_server.settings.nats_signer import SignatureRefused

_ANOTHER_SERVER = SignatureRefused(
    "it does not ask who we are, so it is not the nats-server that pyoco-server started",
    "Another program has taken its port: find it (ss -ltp), and stop it.",
)


class FileUnusable(Error):
    """A file that is needed to connect cannot be used now; it is read again with the next try."""


class NotEncrypted(Error):
    """The server does not ask for TLS, and we must not speak without."""


class CredentialRefused(Error):
    """Whoever could sign the server's challenge for us does not.

    Args:
        refused: Why.
    """

    def __init__(self, refused: SignatureRefused) -> None:
        super().__init__(refused.message)
        self.message = refused.message
        self.hint = refused.hint


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
    def is_maimed(self) -> bool:
        """Tell whether a task of the client's has ended, and it takes itself for connected all the same.

        nats-py ends its reader, its pings or its writer for good over an error that it does not expect.
        """
        return self.is_connected and any(task is None or task.done() for task in self._own_tasks)

    @property
    def _own_tasks(self) -> tuple["asyncio.Task[None] | None", ...]:
        return self._reading_task, self._ping_interval_task, self._flusher_task

    async def _attempt_reconnect(self) -> None:
        """Come back; also after an error that nats-py does not expect, over which it would never try again."""
        while True:
            self._let_go()  # or nats-py would wait until the other side has taken what is left to send
            try:
                await super()._attempt_reconnect()
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told of, and tried again
                if self.is_closed:
                    return
                self._status = Client.RECONNECTING
                await self._error_cb(error)
                await asyncio.sleep(self.options["reconnect_time_wait"])

    async def _connect_to_server(self, s: Srv) -> None:
        self._let_go()  # nats-py leaves the socket of a try open that a silent server did not answer
        await super()._connect_to_server(s)

    def _let_go(self) -> None:
        """Close the last connection at once, and end what belongs to it."""
        for task in self._own_tasks:
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        if isinstance(self._transport, TcpTransport) and self._transport._io_writer is not None:
            self._transport._io_writer.transport.abort()

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
        self._have_signed()
        return bytes(super()._connect_command())

    def _have_signed(self) -> None:
        """Have the server's challenge signed, where it sends one and we have no credential of our own."""
        signer, nonce, server = self._target.signer, self._server_info.get("nonce"), self._current_server
        if signer is None or server is None:
            return
        if not nonce or not self._server_info.get("auth_required"):
            if signer.certain:
                raise CredentialRefused(_ANOTHER_SERVER)
            return
        # Asked anew for each connection: with each start of its pyoco-server the nats-server knows other keys.
        try:
            signed = signer.sign(self._target.role, nonce, server.uri.hostname or "", server.uri.port or DEFAULT_PORT)
        except SignatureRefused as refused:
            raise CredentialRefused(refused) from None
        self._auth_configured = signed is not None
        self._public_nkey = signed.nkey if signed else None
        self._signature_cb = (lambda _: signed.signature.encode()) if signed else None

    async def _process_err(self, err_msg: str) -> None:
        """Take in what the server complains of.

        nats-py closes for good then, also after a credential expired or was one connection too many. Where the server
        means it, it ends the connection itself, and that leads to a new one.
        """
        if STALE_CONNECTION in err_msg:
            await super()._process_err(err_msg)
        else:
            await self._error_cb(Error("nats: " + err_msg.strip("'")))
