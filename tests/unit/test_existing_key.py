"""Records of the existing system: what is believed of them."""

import json
import time
from typing import Any

import pytest

from pyoco_server.model.access import Role
from pyoco_server.model.apikey import ApiKey, Pepper
from pyoco_server.model.existing.api_key import ExistingKey, UnusableKey
from tests.integration.existing_keyholders import made_there

KEY = ApiKey.new()


def record(pepper: str = "", **changes: Any) -> ExistingKey:
    return ExistingKey.from_json(made_there(KEY, pepper, **changes))


@pytest.mark.parametrize("pepper", ["", "p", "ペッパー"])
def test_the_hash_is_that_of_secret_and_pepper(pepper: str) -> None:
    slow = record(pepper).slow_hash()
    assert slow.of(Pepper(pepper or None).behind(KEY)) == slow.digest
    assert slow.of(Pepper("another").behind(KEY)) != slow.digest
    assert record(pepper).problem() is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kdf": "scrypt"}, "scrypt"), ({"kdf": 7}, "7"), ({"kdf": "x" * 9000}, "x…"),
        ({"iterations": 10**9}, "iterations"), ({"iterations": -1}, "iterations"),
        ({"iterations": "many"}, "iterations"),
        ({"iterations": True}, "iterations"), ({"iterations": 1.5}, "iterations"),
        ({"salt_b64": ""}, "salt"), ({"salt_b64": "!!"}, "salt"), ({"salt_b64": "A" * 10**6}, "salt"),
        ({"salt_b64": None}, "salt"), ({"hash_b64": "AAAA"}, "hash"), ({"hash_b64": ["x"]}, "hash"),
        ({"hash_b64": "é"}, "hash"), ({"tenant_id": "a.b"}, "tenant"),
    ],
)  # fmt: skip
def test_what_nothing_is_known_by(changes: dict[str, Any], said: str) -> None:
    made = record(**changes) if "iterations" not in changes else record().model_copy(update=changes)
    with pytest.raises(UnusableKey, match=said):
        made.slow_hash()
    told = str(made.problem())
    assert told.startswith("made by the existing system: ") and "make a new key" in told and len(told) < 300


def test_what_may_be_left_out() -> None:
    told = json.loads(made_there(KEY))
    for name in ("kdf", "revoked_at"):
        del told[name]
    told["created_at"] = None
    made = ExistingKey.from_json(json.dumps(told).encode())
    assert made.slow_hash().iterations == 1000 and made.created_at == 0.0
    assert made.model_copy(update={"iterations": None}).slow_hash().iterations == 200_000


def test_nobody_gets_more_by_it_than_a_member_may() -> None:
    made = record(role="operator", expires_at=1.0, scheme="hmac-sha256/1", digest="x", pepper_id="y")
    assert (made.role, made.expires_at, made.scheme, made.digest, made.pepper_id) == ("member", None, "", "", None)
    assert made.role == Role.MEMBER.value


def test_what_was_revoked_does_not_come_back() -> None:
    made = record()
    revoked = made.revoked(time.time())
    assert revoked.revoked_at is not None and revoked.revoked(1.0) is revoked and revoked.problem() is None
    again = ExistingKey.from_json(revoked.to_json()).model_copy(update={"revoked_at": None})
    with pytest.raises(UnusableKey):
        again.slow_hash()


@pytest.mark.parametrize("changes", [{"tenant_id": "other"}, {"hash_b64": "A" * 43}, {"salt_b64": "AAAA"}])
def test_a_record_that_was_changed_is_another_one(changes: dict[str, Any]) -> None:
    made = record()
    assert made.print() == ExistingKey.from_json(made.to_json()).print()
    assert made.model_copy(update=changes).print() != made.print()
