"""Where NATS is and as whom: what fits together, what is told, and what is never shown."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pyoco_server.errors import InvalidSetting
from pyoco_server.settings.environment import Settings


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def given(**fields: Any) -> Settings:
    return Settings(_env_file=None, **fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"nats_user": "u"}, "PYOCO_NATS_USER and PYOCO_NATS_PASSWORD go together"),
        ({"nats_password": "secret"}, "PYOCO_NATS_USER and PYOCO_NATS_PASSWORD go together"),
        ({"nats_token": "secret", "nats_creds": "f"}, "only one of them"),
        ({"nats_url": "nats://u:secret@a", "nats_user": "u", "nats_password": "secret"}, "only one of them"),
        ({"nats_url": "nats://u:secret@a,nats://v:secret@b"}, "the same for every server"),
        ({"auth_nats_user": "u"}, "PYOCO_AUTH_NATS_USER and PYOCO_AUTH_NATS_PASSWORD go together"),
        ({"auth_nats_url": "nats://u:secret@a", "auth_nats_creds": "f"}, "a user in PYOCO_AUTH_NATS_URL"),
    ],
)
def test_what_does_not_fit_together_is_refused_without_showing_it(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        given(**fields)
    assert said in str(error.value)
    assert "secret" not in str(error.value)


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given(nats_url="nats://u:secret@a", auth_nats_user="u", auth_nats_password="secret")
    shown = [repr(settings), str(settings.nats_target()), repr(settings.keys_target())]
    assert "secret" not in "".join(shown)
    assert settings.nats_target().variables == "PYOCO_NATS_URL"
    monkeypatch.setenv("PYOCO_NATS_PASSWORD", "secret")
    monkeypatch.setenv("PYOCO_NATS_REPLICAS", "9")
    with pytest.raises(InvalidSetting) as error:
        Settings.from_env()
    assert "secret" not in error.value.message


def test_an_address_may_hold_a_user_or_a_token() -> None:
    target = given(nats_url="nats://a%40b:p%2Cw%25@h:1,nats://k:2").nats_target()
    assert target.password is not None
    assert (target.servers, target.user, target.password.get_secret_value()) == (
        ("nats://h:1", "nats://k:2"), "a@b", "p,w%",
    )  # fmt: skip
    target = given(nats_url="tls://t%2Fk@h").nats_target()
    assert target.token is not None
    assert (target.servers, target.token.get_secret_value(), target.wants_tls) == (("tls://h",), "t/k", True)


def test_api_keys_have_the_same_connection_unless_they_are_given_one() -> None:
    settings = given(nats_url="nats://h", nats_user="u", nats_password="secret")
    assert (settings.keys_apart, settings.keys_target()) == (False, settings.nats_target())


def test_the_connection_for_api_keys_never_takes_the_other_ones_credential() -> None:
    settings = given(
        nats_url="nats://u:secret@h:1,k", nats_tls_ca="ca.pem", auth_nats_user="keys", auth_nats_password="other"
    )
    target = settings.keys_target()
    assert settings.keys_apart and target.password is not None
    assert (target.servers, target.user, target.password.get_secret_value(), target.variables) == (
        ("nats://h:1", "nats://k"), "keys", "other", "PYOCO_AUTH_NATS_USER and PYOCO_AUTH_NATS_PASSWORD",
    )  # fmt: skip
    assert target.tls_ca == Path("ca.pem")
    open_one = given(nats_user="u", nats_password="secret", auth_nats_url="nats://elsewhere").keys_target()
    assert (open_one.servers, open_one.user, open_one.password) == (("nats://elsewhere",), None, None)


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYOCO_NATS_CREDS", "~/user.creds")
    with pytest.raises(InvalidSetting, match=f"PYOCO_NATS_CREDS='{tmp_path}/user.creds' cannot be read"):
        Settings.from_env()
