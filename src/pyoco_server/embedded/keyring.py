"""The users of an embedded nats-server: a key pair for each role, made at its start, in memory only."""

import base64
import os
from collections.abc import Callable

import nkeys

from pyoco_server.settings.nats_signer import NatsRole, SignatureRefused, Signed


class Keyring:
    """Signs challenges for each role.

    The nats-server knows public keys alone: neither its configuration nor its memory holds what would let anybody in,
    and a server that takes its port learns nothing from whoever connects.
    """

    certain = True

    def __init__(self) -> None:
        self.server_runs: Callable[[], bool] = lambda: True
        """Whether our nats-server has its port now; while it does not, another one may."""
        self._pairs = {
            role: nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)))
            for role in NatsRole
        }

    @property
    def users(self) -> dict[NatsRole, str]:
        """The public key of each role's user."""
        return {role: pair.public_key.decode() for role, pair in self._pairs.items()}

    def sign(self, role: NatsRole, nonce: str, host: str, port: int) -> Signed:
        """Sign a challenge; see ``Signer``."""
        if not self.server_runs():
            raise SignatureRefused(
                "the nats-server that pyoco-server started does not run now, so another one has its port",
                "It is started again by itself; if another program has taken its port (ss -ltp), stop that.",
            )
        pair = self._pairs[role]
        return Signed(pair.public_key.decode(), base64.b64encode(pair.sign(nonce.encode())).decode())
