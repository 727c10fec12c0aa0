"""As whom a connection speaks to the nats-server that ``pyoco-server up --with-nats`` starts.

With API keys on, that server knows a user for each role, by its public key alone. The private keys are in the memory of
the process that started it, and never leave it: each connection is sent a challenge, and has it signed there.
"""

import contextlib
import ipaddress
import json
import socket
import sys
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

ANSWER_SEC = 2.0
LONGEST = 4096
"""Bytes of a request or an answer."""


class NatsRole(str, Enum):
    """What a connection may do."""

    GATEWAY = "gateway"
    WORKER = "worker"
    ADMIN = "admin"
    """Everything but API keys: backups."""
    KEYS = "keys"
    """Look API keys up."""
    KEYS_ADMIN = "keys_admin"
    """Make them."""


@dataclass(frozen=True)
class Signed:
    """A signed challenge.

    Args:
        nkey: Public key of whoever signed.
        signature: In base64.
    """

    nkey: str
    signature: str


class SignatureRefused(Exception):
    """Whoever could sign does not.

    Args:
        message: Why.
        hint: What to do.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Signer(Protocol):
    """Signs challenges."""

    certain: bool
    """Whether the server must send one: one that does not is not the server that we mean."""

    def sign(self, role: NatsRole, nonce: str, host: str, port: int) -> Signed | None:
        """Sign a challenge.

        Args:
            role: As what to be let in.
            nonce: The challenge.
            host: Whose it is.
            port: And on which port.

        Returns:
            ``None`` where there is nobody who could.

        Raises:
            SignatureRefused: there is somebody, who does not.
        """
        ...


def socket_name(port: int) -> str:
    """Name the socket at which challenges of the nats-server on a port are signed.

    An abstract one: it is found from every directory, gone with its process, and a confined process cannot reach it
    (Landlock). As the port does, it belongs to one network namespace.
    """
    return f"\0pyoco-server/nats/{port}"


class LocalSigner:
    """Asks the ``pyoco-server up --with-nats`` of this machine and user, if there is one.

    Args:
        certain: Whether it is known that there is.
    """

    def __init__(self, *, certain: bool = False) -> None:
        self.certain = certain

    def answers(self, host: str, port: int) -> bool:
        """Whether there is one for the server at an address, and it signs for us.

        Raises:
            SignatureRefused: there is one, and it does not.
        """
        return self._ask(host, port, {"do": "look"}) is not None

    def sign(self, role: NatsRole, nonce: str, host: str, port: int) -> Signed | None:
        """Have it sign; see ``Signer``."""
        answer = self._ask(host, port, {"do": "sign", "role": role.value, "nonce": nonce})
        if answer is None:
            return None
        try:
            return Signed(str(answer["nkey"]), str(answer["signature"]))
        except KeyError:
            raise SignatureRefused(f"what answers for port {port} is no pyoco-server of this version") from None

    @staticmethod
    def _ask(host: str, port: int, request: dict[str, Any]) -> dict[str, Any] | None:
        if sys.platform != "linux" or not _is_here(host):
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(ANSWER_SEC)
            try:
                asking.connect(socket_name(port))
            except ConnectionRefusedError:
                return None
            except OSError as error:  # a confined process, for one
                raise SignatureRefused(
                    f"the pyoco-server that started NATS cannot be asked for a credential: {error.strerror or error}"
                ) from None
            text = b""
            # Where it refuses, it may not have read what we send, and the connection breaks.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                asking.sendall(json.dumps(request).encode() + b"\n")
            try:
                while not text.endswith(b"\n") and len(text) < LONGEST and (more := asking.recv(LONGEST)):
                    text += more
                answer = json.loads(text)
            except (OSError, ValueError):
                raise SignatureRefused(
                    f"the pyoco-server that started NATS gave no credential within {ANSWER_SEC:g} s",
                    "Is it stopped (Ctrl-Z), or from another version?",
                ) from None
        if not isinstance(answer, dict) or "refused" in answer:
            told = answer if isinstance(answer, dict) else {}
            raise SignatureRefused(str(told.get("refused", "odd answer")), str(told.get("hint", "")))
        return answer


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
