"""nats-servers that do not let everybody in: by password, by certificate, by JWT."""

import base64
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import nkeys
import trustme

from pyoco_server.embedded.nats_server import NatsServer


class NatsWith(NatsServer):
    """A nats-server with more in its configuration.

    Args:
        folder: Where its data lives.
        port: Its port for clients; -1 for a free one.
        more: What its configuration holds beside that.
    """

    def __init__(self, folder: Path, *, port: int = -1, **more: Any) -> None:
        super().__init__(folder, client_port=port, http_port=-1)
        self.more = more

    def _config(self) -> dict[str, Any]:
        return {**super()._config(), **self.more}


class SecuredNats(NatsServer):
    """A nats-server with the configuration that we tell users to take, as it is, on free ports.

    Args:
        folder: Where its data lives.
        port: Its port for clients; -1 for a free one.
    """

    CONFIG = Path(__file__).parents[1] / "deploy" / "nats" / "nats-server.conf"
    PASSWORDS: ClassVar = {
        name: f"{name.lower()}-pass" for name in ("GATEWAY", "WORKER", "ADMIN", "KEYS", "KEYS_ADMIN")
    }

    def __init__(self, folder: Path, *, port: int = -1) -> None:
        super().__init__(folder, client_port=port, http_port=-1)

    def _arguments(self) -> list[str]:
        os.environ.update({f"{name}_PASSWORD": password for name, password in self.PASSWORDS.items()})
        os.environ["NATS_STORE_DIR"] = str(self._dir / "data")
        flags = {"config": self.CONFIG, "addr": "127.0.0.1", "port": self._client_port, "http_port": -1,
                 "ports_file_dir": self._dir, "log": self._dir / "nats-server.log"}  # fmt: skip
        return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


class Certificates:
    """A certificate authority and what it has signed, as files.

    Args:
        folder: Where the files are.
        host: For which address the server's certificate is.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1", **options: Any) -> None:
        folder.mkdir()
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.server = self._write(folder, "server", authority.issue_cert(host, **options))
        self.client = self._write(folder, "client", authority.issue_cert("gateway@pyoco.example"))

    @staticmethod
    def _write(folder: Path, name: str, issued: trustme.LeafCert) -> tuple[Path, Path]:
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        return certificate, key

    def tls(self, **more: Any) -> dict[str, Any]:
        """Give the part of a server's configuration."""
        return {"tls": {"cert_file": str(self.server[0]), "key_file": str(self.server[1]), **more}}


def new_seed(prefix: int = nkeys.PREFIX_BYTE_USER) -> str:
    """Make a seed."""
    return str(nkeys.encode_seed(os.urandom(32), prefix).decode())


def public_key(seed: str) -> str:
    """Give the public key of a seed."""
    return str(nkeys.from_seed(bytearray(seed.encode())).public_key.decode())


def _jwt(subject: str, issuer_seed: str, claims: dict[str, Any], **more: Any) -> str:
    def encoded(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).decode().rstrip("=")

    body = {"jti": os.urandom(8).hex(), "iat": int(time.time()), "iss": public_key(issuer_seed), "name": "test",
            "sub": subject, "nats": {**claims, "version": 2}, **more}  # fmt: skip
    text = ".".join(encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return f"{text}.{encoded(nkeys.from_seed(bytearray(issuer_seed.encode())).sign(text.encode()))}"


@dataclass(frozen=True)
class Operator:
    """An operator with one account, whose users come with creds files."""

    seed: str
    account: str
    system: str

    @classmethod
    def make(cls) -> "Operator":
        """Make all keys."""
        return cls(new_seed(nkeys.PREFIX_BYTE_OPERATOR), *(new_seed(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2)))

    def config(self) -> dict[str, Any]:
        """Give the part of a server's configuration."""
        unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        stored = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        accounts = {self.account: {**unlimited, **stored, "wildcards": True}, self.system: unlimited}
        return {
            "operator": _jwt(public_key(self.seed), self.seed, {"type": "operator"}),
            "system_account": public_key(self.system),
            "resolver": "MEMORY",
            "resolver_preload": {
                public_key(account): _jwt(public_key(account), self.seed, {"type": "account", "limits": limits})
                for account, limits in accounts.items()
            },
        }

    def write_creds(self, path: Path, valid_sec: float = 3600) -> Path:
        """Write the creds file of a new user."""
        seed = new_seed()
        limits = {"subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}, "type": "user"}
        jwt = _jwt(public_key(seed), self.account, limits, exp=int(time.time() + valid_sec))
        parts = [("NATS USER JWT", jwt), ("USER NKEY SEED", seed)]
        path.write_text("".join(f"-----BEGIN {name}-----\n{text}\n------END {name}------\n\n" for name, text in parts))
        return path
