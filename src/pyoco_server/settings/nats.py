"""The settings that say where NATS is, and as whom we speak to it."""

import base64
import json
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings
from typing_extensions import Self

from pyoco_server.errors import InvalidSetting, StoreRefused
from pyoco_server.settings.nats_signer import LocalSigner, NatsRole, SignatureRefused, Signer

_MAIN, _KEYS = "PYOCO_NATS_", "PYOCO_AUTH_NATS_"
DEFAULT_PORT = 4222
_SCHEMES = {"nats", "tls", "ws", "wss"}
_ENCRYPTED = {"tls", "wss"}
ACCESS_FIELDS = (
    *(f"nats_{name}" for name in ("user", "password", "token", "creds", "nkey_seed", "tls_ca", "tls_cert", "tls_key")),
    *(f"auth_nats_{name}" for name in ("url", "user", "password", "creds")),
)
_CREDS_PARTS = ("NATS USER JWT", "USER NKEY SEED")

Subject = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]
File = Annotated[Path, AfterValidator(Path.expanduser)]


@dataclass(frozen=True)
class NatsTarget:
    """Where a connection goes, and as whom. No file has been read yet.

    Args:
        prefix: What the names of its variables begin with, for messages.
        servers: Addresses, without user and password.
        user: Its name, with a ``password``.
        password: Its password.
        token: Instead of both.
        creds: Instead: a file with a user's JWT and seed.
        nkey_seed: Instead: a file with a user's seed.
        in_url: The credential stood in the address.
        tls_ca: Certificates of those who may sign the server's; ``None``: whom this machine trusts.
        tls_cert: Our own certificate, with its ``tls_key``.
        tls_key: Its key.
        inbox_prefix: What the subjects of answers to us begin with.
        signer: Instead of a credential: who signs the server's challenge, if it sends one.
        role: As what.
    """

    prefix: str
    servers: tuple[str, ...]
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    creds: Path | None = None
    nkey_seed: Path | None = None
    in_url: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    inbox_prefix: str = "_INBOX"
    signer: Signer | None = None
    role: NatsRole = NatsRole.GATEWAY

    @property
    def shown_url(self) -> str:
        """Where it goes; there is no password in it."""
        return ",".join(self.servers)

    @property
    def wants_tls(self) -> bool:
        """Whether nothing may be sent in the clear."""
        return bool(self.tls_ca or self.tls_cert) or any(urlsplit(one).scheme in _ENCRYPTED for one in self.servers)

    @property
    def variables(self) -> str:
        """The variables that hold the credential, for messages; empty without one."""
        if self.in_url:
            return f"{self.prefix}URL"
        given = {"CREDS": self.creds, "NKEY_SEED": self.nkey_seed, "TOKEN": self.token}
        return next((self.prefix + name for name, value in given.items() if value), self._user_and_password)

    @property
    def _user_and_password(self) -> str:
        return f"{self.prefix}USER and {self.prefix}PASSWORD" if self.user is not None else ""

    def check_files(self) -> None:
        """Look at the files that it names.

        Raises:
            InvalidSetting: one is missing or cannot be used; the message names the variable.
        """
        if self.creds:
            self.read_creds()
        if self.nkey_seed:
            self.read_seed()
        self.tls_context()

    def read_creds(self) -> tuple[bytearray, bytearray]:
        """Give the user's JWT and seed from the creds file.

        Raises:
            InvalidSetting: it is missing or holds something else.
        """
        text = _read(f"{self.prefix}CREDS", self.creds)
        parts = [re.search(rf"-----BEGIN {part}-----\s+(\S+)\s+-+END {part}-".encode(), text) for part in _CREDS_PARTS]
        jwt, seed = parts
        if jwt is None or seed is None:
            raise InvalidSetting(
                f"{self.prefix}CREDS={str(self.creds)!r} is not a creds file: it has no user's JWT and seed"
            )
        return bytearray(jwt[1]), bytearray(seed[1])

    def creds_expire_at(self) -> float | None:
        """Give the unix time until which the creds file's JWT holds; ``None`` where it tells none.

        Raises:
            InvalidSetting: the file is missing or holds something else.
        """
        claims = self.read_creds()[0].split(b".")[1:2]
        try:
            until = json.loads(base64.urlsafe_b64decode(b"".join(claims) + b"==")).get("exp")
        except (ValueError, AttributeError):
            return None
        return float(until) if isinstance(until, (int, float)) else None

    def read_seed(self) -> bytearray:
        """Give the user's seed from the seed file.

        Raises:
            InvalidSetting: it is missing or holds something else.
        """
        found = re.search(rb"^SU[A-Z2-7]{56}\s*$", _read(f"{self.prefix}NKEY_SEED", self.nkey_seed), re.MULTILINE)
        if found is None:
            raise InvalidSetting(f"{self.prefix}NKEY_SEED={str(self.nkey_seed)!r} does not hold a user's seed (SU…)")
        return bytearray(found[0].strip())

    def tls_context(self) -> ssl.SSLContext | None:
        """Give what the certificates say; ``None`` where none are set.

        Raises:
            InvalidSetting: a file is missing or holds something else.
        """
        if not self.tls_ca and not self.tls_cert:
            return None
        if self.tls_ca:
            _read("PYOCO_NATS_TLS_CA", self.tls_ca)
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
        except (ssl.SSLError, OSError) as error:
            raise InvalidSetting(f"PYOCO_NATS_TLS_CA={str(self.tls_ca)!r} holds no certificate: {error}") from None
        if self.tls_cert and self.tls_key:
            _read("PYOCO_NATS_TLS_CERT", self.tls_cert)
            _read("PYOCO_NATS_TLS_KEY", self.tls_key)
            try:
                context.load_cert_chain(self.tls_cert, self.tls_key, password="")  # never ask on the terminal
            except (ssl.SSLError, OSError, ValueError) as error:
                raise InvalidSetting(
                    f"PYOCO_NATS_TLS_CERT={str(self.tls_cert)!r} and PYOCO_NATS_TLS_KEY={str(self.tls_key)!r} are no "
                    f"certificate with its own key, or the key is encrypted: {error}"
                ) from None
        return context


class NatsSettings(BaseSettings):
    """The part of the settings that is about the connections to NATS."""

    nats_url: str = Field("nats://127.0.0.1:4222", repr=False)
    """One server, or several of a cluster, comma separated: whichever answers is used."""
    nats_user: str | None = None
    nats_password: SecretStr | None = None
    nats_token: SecretStr | None = None
    nats_creds: File | None = None
    nats_nkey_seed: File | None = None
    nats_tls_ca: File | None = None
    nats_tls_cert: File | None = None
    nats_tls_key: File | None = None
    nats_inbox_prefix: Subject = "_INBOX"
    """What the subjects of answers to us begin with; a user of its own may be given one that no other can read."""

    nats_sync: Literal["always", "interval"] = "always"
    """When the embedded server forces what it acknowledges to the disk; another server decides for itself."""
    nats_monitor_url: str | None = None
    """Where NATS's monitoring answers, for each of its servers, comma separated: it knows how they write."""

    # The connection for API keys, where they are kept out of the workers' reach; unset: the same as for all else.
    auth_nats_url: str | None = Field(None, repr=False)
    auth_nats_user: str | None = None
    auth_nats_password: SecretStr | None = None
    auth_nats_creds: File | None = None

    _signer: Signer | None = PrivateAttr(default=None)
    """Who signs the challenges of the nats-server of ``up --with-nats``, where that knows users."""

    @field_validator("nats_url", "auth_nats_url")
    @classmethod
    def _servers_can_be_read(cls, value: str | None) -> str | None:
        if value is None:
            return None
        servers = _split(value)
        for server in servers or [value]:
            _check_server(server)
        if len({server.startswith(("ws://", "wss://")) for server in servers}) > 1:
            raise ValueError("either all of the servers are ws:// or wss:// addresses, or none")
        return ",".join(servers)

    @field_validator("nats_monitor_url")
    @classmethod
    def _monitors_can_be_read(cls, value: str | None) -> str | None:
        monitors = [one.rstrip("/") for one in _split(value or "")]
        for one in monitors:
            try:
                parts = urlsplit(one)
                usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            except ValueError:
                usable = False
            if not usable or "@" in one:
                raise ValueError("it is not the address of NATS's monitoring, such as http://10.0.0.1:8222")
        return ",".join(monitors) or None

    @property
    def nats_monitors(self) -> list[str]:
        """The addresses in ``nats_monitor_url``."""
        return _split(self.nats_monitor_url or "")

    @model_validator(mode="after")
    def _access_fits_together(self) -> Self:
        if bool(self.nats_tls_cert) != bool(self.nats_tls_key):
            raise ValueError("PYOCO_NATS_TLS_CERT and PYOCO_NATS_TLS_KEY go together: give both or none")
        self.nats_target()
        self.keys_target()
        return self

    @property
    def nats_access(self) -> list[str]:
        """The variables that are set of those that say as whom, and how guarded, we speak to NATS."""
        return ["PYOCO_" + field.upper() for field in ACCESS_FIELDS if getattr(self, field) is not None]

    def nats_variables(self) -> dict[str, str]:
        """Return the variables that say as whom another process is to speak to NATS, but for keys."""
        values = {field: getattr(self, field) for field in ACCESS_FIELDS if not field.startswith("auth_")}
        return {
            "PYOCO_" + field.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for field, value in values.items()
            if value is not None
        }

    def at(self, url: str, monitor_url: str | None = None, signer: Signer | None = None) -> Self:
        """Return the settings for a NATS of our own.

        Args:
            url: Where it is.
            monitor_url: Where its monitoring answers, if anybody wants to know.
            signer: Who signs its challenges; ``None``: it lets everybody in.
        """
        places = {"nats_url": url, "nats_monitor_url": monitor_url}
        return self.model_copy(update={**dict.fromkeys(ACCESS_FIELDS), **places})._signed_by(signer)

    def with_local_signer(self) -> Self:
        """Return the settings with which API keys are found where a ``pyoco-server up --with-nats`` keeps them apart.

        It is looked for where NATS's address is this machine's, and no credential is set.

        Raises:
            StoreRefused: it is there, and gives us no credential.
        """
        if self._signer is not None or self.nats_access or len(servers := _split(self.nats_url)) != 1:
            return self
        signer, server = LocalSigner(), _parse(servers[0])
        try:
            found = signer.answers(server.hostname or "", server.port or DEFAULT_PORT)
        except SignatureRefused as refused:
            raise StoreRefused(refused.message, hint=refused.hint) from None
        return self.model_copy()._signed_by(LocalSigner(certain=True)) if found else self

    def _signed_by(self, signer: Signer | None) -> Self:
        self._signer = signer
        return self

    @property
    def keys_apart(self) -> bool:
        """Whether API keys are kept behind a connection of their own."""
        given = (self.auth_nats_url, self.auth_nats_user, self.auth_nats_password, self.auth_nats_creds)
        return self._signer is not None or any(value is not None for value in given)

    def nats_target(self, role: NatsRole = NatsRole.GATEWAY) -> NatsTarget:
        """Say where the connection for everything but API keys goes.

        Args:
            role: As what, where no credential is set and NATS asks for one.
        """
        return self._target(
            _MAIN, self.nats_url, self.nats_user, self.nats_password, self.nats_creds, self.nats_token,
            self.nats_nkey_seed, role=role,
        )  # fmt: skip

    def keys_target(self, role: NatsRole = NatsRole.KEYS) -> NatsTarget:
        """Say where the connection for API keys goes.

        Where ``keys_apart`` is false it is the same as ``nats_target``, and no second connection is needed. Else::

            Connection(settings, "pyoco-server:keys", target=settings.keys_target())

        The address and the certificates are those of the other connection unless said otherwise, the credential never.
        """
        if not self.keys_apart:
            return self.nats_target()
        url = self.auth_nats_url or without_users(self.nats_url)
        return self._target(_KEYS, url, self.auth_nats_user, self.auth_nats_password, self.auth_nats_creds, role=role)

    def check_files(self) -> None:
        """Look at the files of both connections.

        Raises:
            InvalidSetting: one is missing or cannot be used.
        """
        self.nats_target().check_files()
        self.keys_target().check_files()

    def _target(
        self,
        prefix: str,
        url: str,
        user: str | None,
        password: SecretStr | None,
        creds: Path | None,
        token: SecretStr | None = None,
        nkey_seed: Path | None = None,
        *,
        role: NatsRole,
    ) -> NatsTarget:
        if (user is None) != (password is None):
            raise ValueError(f"{prefix}USER and {prefix}PASSWORD go together: give both or none")
        in_url = {(one.username, one.password) for one in map(_parse, _split(url)) if one.username is not None}
        if sum(bool(way) for way in (user, creds, token, nkey_seed, in_url)) > 1 or len(in_url) > 1:
            raise ValueError(
                f"{prefix}USER with {prefix}PASSWORD, {prefix}CREDS"
                + (f", {prefix}TOKEN, {prefix}NKEY_SEED" if prefix == _MAIN else "")
                + f", a user in {prefix}URL: only one of them, and the same for every server"
            )
        for name, secret in in_url:  # with its %40 and the like read; without a password it is a token
            if secret is None:
                token = SecretStr(unquote(name or ""))
            else:
                user, password = unquote(name or ""), SecretStr(unquote(secret))
        given = user or creds or token or nkey_seed
        return NatsTarget(
            prefix, tuple(map(_without_user, _split(url))), user, password, token, creds, nkey_seed,
            bool(in_url), self.nats_tls_ca, self.nats_tls_cert, self.nats_tls_key, self.nats_inbox_prefix,
            None if given else self._signer or LocalSigner(), role,
        )  # fmt: skip


def _split(servers: str) -> list[str]:
    return [server.strip() for server in servers.split(",") if server.strip()]


def _parse(server: str) -> SplitResult:
    return urlsplit(server if "://" in server else f"nats://{server}")


def without_users(url: str) -> str:
    """Give the addresses without users and passwords."""
    return ",".join(map(_without_user, _split(url)))


def _without_user(server: str) -> str:
    scheme, _, rest = server.rpartition("://")
    return f"{scheme or 'nats'}://{rest.rpartition('@')[2]}"


def _check_server(server: str) -> None:
    """Refuse an address that the client could not use; the message must not show a password that is in it."""
    try:
        parts = _parse(server)
        usable = parts.scheme in _SCHEMES and bool((parts.hostname or "").strip(", ")) and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not usable:
        scheme, found, rest = server.rpartition("://")
        shown = f"{scheme}{found}{rest.rpartition('@')[2]}"
        raise ValueError(f"{shown!r} is not the address of a NATS server, such as nats://10.0.0.1:4222")


def _read(variable: str, path: Path | None) -> bytes:
    try:
        return Path(str(path)).read_bytes()
    except OSError as error:
        raise InvalidSetting(f"{variable}={str(path)!r} cannot be read: {error.strerror}") from None
