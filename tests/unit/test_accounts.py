"""The rights in an embedded nats-server are those of the configuration that we give to users."""

import re
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.embedded.accounts import accounts
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats_signer import NatsRole

DEPLOYED = Path(__file__).parents[2] / "deploy" / "nats" / "nats-server.conf"
TOKEN = re.compile(r'\s+|#[^\n]*|(?P<text>"[^"]*")|(?P<sign>[{}\[\]:,])|(?P<word>[^\s{}\[\]:,"#]+)')
USERS = {role: {"user": role.value, "password": f"${role.value.upper()}_PASSWORD"} for role in NatsRole}


class Reader:
    """Reads as much of NATS's configuration language as our file uses."""

    def __init__(self, text: str) -> None:
        found = (match for match in TOKEN.finditer(text) if match.lastgroup)
        self.tokens = [match[0].strip('"') if match.lastgroup == "text" else match[0] for match in found]

    def block(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while self.tokens and self.tokens[0] != "}":
            if (name := self.tokens.pop(0)) == ",":
                continue
            if self.tokens[0] == ":":
                self.tokens.pop(0)
            values[name] = self.value()
        return values

    def value(self) -> Any:
        token = self.tokens.pop(0)
        if token == "{":
            block = self.block()
            self.tokens.pop(0)
            return block
        if token == "[":
            items = []
            while self.tokens[0] != "]":
                if self.tokens[0] == ",":
                    self.tokens.pop(0)
                else:
                    items.append(self.value())
            self.tokens.pop(0)
            return items
        return {"true": True, "false": False}.get(token, token)


def settled(value: Any) -> Any:
    """Return a value in which the order of lists does not count."""
    if isinstance(value, dict):
        return {name: settled(one) for name, one in value.items()}
    return sorted((settled(one) for one in value), key=repr) if isinstance(value, list) else value


def test_they_are_those_of_the_file() -> None:
    deployed = Reader(DEPLOYED.read_text()).block()["accounts"]
    ours = accounts(Settings(_env_file=None), USERS)
    assert len(deployed["APP"]["exports"]) == len(deployed["WORKERS"]["imports"]) > 20
    assert settled(ours) == settled(deployed)


@pytest.mark.parametrize("account", ["APP", "WORKERS", "KEYS"])
def test_nothing_is_listed_twice(account: str) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            assert len({repr(one) for one in value}) == len(value)
            for one in value:
                walk(one)

    walk(accounts(Settings(_env_file=None), USERS)[account])


def test_names_are_those_of_the_settings() -> None:
    fields = ("work_stream", "work_subject_prefix", "runs_kv_bucket", "flows_kv_bucket", "workers_kv_bucket",
              "control_subject_prefix", "dlq_stream", "dlq_subject_prefix", "advisory_stream", "logs_stream",
              "logs_subject_prefix", "audit_subject_prefix", "wheel_object_store_bucket", "wheel_history_kv_bucket",
              "auth_kv_bucket", "nats_inbox_prefix")  # fmt: skip
    settings = Settings(_env_file=None, **{field: f"other_{number:02}" for number, field in enumerate(fields)})
    said = repr(accounts(settings, USERS))
    assert [field for number, field in enumerate(fields) if f"other_{number:02}" not in said] == []
    assert re.findall(r"(?i)pyoco[\w.]*|_INBOX", said) == []
