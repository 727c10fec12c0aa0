"""Keys: their form, what is kept of them, and every way in which one is refused."""

import re
import time
from typing import Any

import pytest

from pyoco_server.cli.keys import read_end
from pyoco_server.errors import InvalidInput
from pyoco_server.model.access import Role, check_tenant
from pyoco_server.model.apikey import ApiKey, ApiKeyRecord, Pepper, Refusal

NOW = 1_800_000_000.0


def sealed(key: ApiKey, pepper: Pepper, **changes: Any) -> ApiKeyRecord:
    fields: dict[str, Any] = {"tenant_id": "demo", "role": Role.MEMBER, "created_at": NOW, "expires_at": None}
    return pepper.seal(key, **{**fields, **changes})


def test_a_key_looks_as_the_contract_says() -> None:
    text = ApiKey.new().reveal()
    assert re.fullmatch(r"pyoco_[0-9a-f]{24}\.[A-Za-z0-9_-]{43}", text)
    key = ApiKey.parse(text)
    assert key is not None and key.reveal() == text
    assert key.secret not in repr(key)
    assert ApiKey.new() != ApiKey.new()


GOOD = "pyoco_" + "a1" * 12 + "." + "S" * 43


@pytest.mark.parametrize(
    "text",
    [
        "", "x", GOOD[:-1], GOOD + "S", GOOD.upper(), GOOD.replace(".", "_"), GOOD + "\n", " " + GOOD,
        GOOD.replace("a1", "g1"), GOOD[:-1] + "é",
    ],
)  # fmt: skip
def test_what_is_no_key(text: str) -> None:
    assert ApiKey.parse(GOOD) is not None
    assert ApiKey.parse(text) is None


def test_nothing_that_is_kept_gives_the_secret_away() -> None:
    key = ApiKey.new()
    for pepper in (Pepper(None), Pepper("p")):
        assert key.secret not in sealed(key, pepper).to_json().decode()


def test_a_good_key_is_good_after_its_record_was_written_and_read() -> None:
    key, pepper = ApiKey.new(), Pepper("salt")
    record = ApiKeyRecord.from_json(sealed(key, pepper, expires_at=NOW + 0.1).to_json())
    assert pepper.refusal(key, record, NOW) is None
    assert pepper.refusal(key, record, NOW + 0.1) is Refusal.EXPIRED


@pytest.mark.parametrize(
    "forged",
    [
        {"role": "admin"}, {"tenant_id": "other"}, {"expires_at": NOW + 1e9}, {"digest": ""}, {"digest": "é"},
    ],
)  # fmt: skip
def test_a_record_that_was_changed_admits_nobody(forged: dict[str, Any]) -> None:
    key, pepper = ApiKey.new(), Pepper("salt")
    record = sealed(key, pepper).model_copy(update=forged)
    assert pepper.refusal(key, record, NOW) is Refusal.WRONG_SECRET


def test_the_digest_of_one_key_is_of_no_use_for_another() -> None:
    pepper = Pepper(None)
    mine, other = ApiKey.new(), ApiKey.new()
    stolen = sealed(other, pepper).model_copy(update={"digest": sealed(mine, pepper).digest})
    assert pepper.refusal(ApiKey(other.key_id, mine.secret), stolen, NOW) is Refusal.WRONG_SECRET


@pytest.mark.parametrize(("made_with", "asked_with"), [("a", "b"), (None, "b"), ("a", None)])
def test_another_pepper_refuses_every_key_and_says_why(made_with: str | None, asked_with: str | None) -> None:
    key = ApiKey.new()
    assert Pepper(asked_with).refusal(key, sealed(key, Pepper(made_with)), NOW) is Refusal.OTHER_PEPPER
    assert Pepper(made_with).refusal(key, sealed(key, Pepper(made_with)), NOW) is None


def test_refusals() -> None:
    key, pepper = ApiKey.new(), Pepper(None)
    record = sealed(key, pepper)
    assert pepper.refusal(None, None, NOW) is Refusal.MALFORMED
    assert pepper.refusal(key, None, NOW) is Refusal.UNKNOWN
    assert pepper.refusal(ApiKey(key.key_id, ApiKey.new().secret), record, NOW) is Refusal.WRONG_SECRET
    assert pepper.refusal(key, record.revoked(NOW), NOW) is Refusal.REVOKED
    # Of a newer version, which may have meant it to allow less than we would.
    assert pepper.refusal(key, record.model_copy(update={"scheme": "hmac-sha256/2"}), NOW) is Refusal.UNKNOWN_FORM
    assert pepper.refusal(key, record.model_copy(update={"role": "auditor"}), NOW) is Refusal.UNKNOWN_FORM


def test_a_revoked_key_does_not_come_back() -> None:
    key, pepper = ApiKey.new(), Pepper(None)
    revoked = sealed(key, pepper).revoked(NOW)
    assert revoked.revoked(NOW + 9) is revoked
    assert pepper.refusal(key, revoked.model_copy(update={"revoked_at": None}), NOW) is Refusal.WRONG_SECRET


def test_fields_of_other_versions_stay() -> None:
    record = ApiKeyRecord.from_json(b'{"key_id": "k", "tenant_id": "t", "note": "laptop"}')
    assert b'"note":"laptop"' in record.revoked(NOW).to_json()
    assert Pepper(None).refusal(ApiKey("k", "s"), record, NOW) is Refusal.UNKNOWN_FORM


@pytest.mark.parametrize("text", ["demo", "A-b_9", "x" * 64])
def test_tenants(text: str) -> None:
    assert check_tenant(text) == text


@pytest.mark.parametrize("text", ["", "x" * 65, "a.b", "a b", "a/b", "テスト", "demo\n"])
def test_what_is_no_tenant(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_tenant(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("12h", 43200), ("30d", 2_592_000), ("2w", 1_209_600),
        ("2027-01-15T09:00:00+01:00", 0), ("2027-01-15T08:00:01Z", 1), ("2027-01-16", 57_600),
    ],
)  # fmt: skip
def test_ends(text: str, seconds: float) -> None:
    assert time.gmtime(NOW)[:5] == (2027, 1, 15, 8, 0)
    assert read_end(text, NOW - 1) - NOW + (1 if text[-1] in "shdw" else 0) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0d", "soon", "-1d", "1y", "2020-01-01", "999999w", "2999-01-01", "1.5h"])
def test_what_is_no_end(text: str) -> None:
    with pytest.raises(InvalidInput, match="--expires"):
        read_end(text, NOW)
