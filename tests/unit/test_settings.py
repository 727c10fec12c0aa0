"""Settings: where they are read from, who wins, and what is said when one cannot be used."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pyoco_server.errors import InvalidSetting
from pyoco_server.settings.environment import Settings, unknown_variables, variable, without_secrets
from pyoco_server.settings.nats import ACCESS_FIELDS
from pyoco_server.store.nats.connection import Connection

# The defaults of the outside contract.
DEFAULTS = {
    "PYOCO_NATS_URL": "nats://127.0.0.1:4222",
    "PYOCO_WORK_SUBJECT_PREFIX": "pyoco.work",
    "PYOCO_DEFAULT_TAG": "default",
    "PYOCO_RUNS_KV_BUCKET": "pyoco_runs",
    "PYOCO_WORKERS_KV_BUCKET": "pyoco_workers",
    "PYOCO_RUN_HEARTBEAT_INTERVAL_SEC": 1.0,
    "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": 5.0,
    "PYOCO_WORKERS_KV_TTL_SEC": 15.0,
    "PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC": 20.0,
    "PYOCO_CANCEL_GRACE_PERIOD_SEC": 30.0,
    "PYOCO_CONSUMER_ACK_WAIT_SEC": 30.0,
    "PYOCO_CONSUMER_MAX_DELIVER": 20,
    "PYOCO_CONSUMER_MAX_ACK_PENDING": 200,
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": 10.0,
    "PYOCO_DLQ_STREAM": "PYOCO_DLQ",
    "PYOCO_DLQ_SUBJECT_PREFIX": "pyoco.dlq",
    "PYOCO_DLQ_PUBLISH_EXECUTION_ERROR": True,
    "PYOCO_DLQ_MAX_AGE_SEC": 604800,
    "PYOCO_DLQ_MAX_MSGS": 100000,
    "PYOCO_DLQ_MAX_BYTES": 536870912,
    "PYOCO_MAX_RUN_SNAPSHOT_BYTES": 262144,
    "PYOCO_WORKFLOW_YAML_MAX_BYTES": 262144,
    "PYOCO_HTTP_AUTH_MODE": "none",
    "PYOCO_DASHBOARD_LANG": "auto",
    "PYOCO_LOG_LEVEL": "INFO",
    "PYOCO_LOG_FORMAT": "json",
    "PYOCO_LOG_UTC": True,
    "PYOCO_LOG_INCLUDE_TRACEBACK": True,
    "PYOCO_NATS_REPLICAS": 1,
    "PYOCO_RUN_MAX_ATTEMPTS": 3,
    "PYOCO_RUN_RETENTION_SEC": 0.0,
}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_are_those_of_the_contract() -> None:
    settings = Settings.from_env()
    assert {name: getattr(settings, name.removeprefix("PYOCO_").lower()) for name in DEFAULTS} == DEFAULTS


def test_a_flag_wins_over_the_environment_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("PYOCO_DEFAULT_TAG=file\nPYOCO_NATS_URL=nats://file:1\nPYOCO_LOG_LEVEL=debug\n")
    monkeypatch.setenv("PYOCO_NATS_URL", "nats://environment:1")
    monkeypatch.setenv("PYOCO_LOG_LEVEL", "WARNING")
    settings = Settings.from_env(log_level="error", dashboard_lang=None)
    assert (settings.default_tag, settings.nats_url, settings.log_level) == ("file", "nats://environment:1", "ERROR")


@pytest.mark.parametrize("off", ["0", "false", "No", " off "])
def test_the_file_is_left_alone_when_asked(monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    Path(".env").write_text("PYOCO_DEFAULT_TAG=file\n")
    monkeypatch.setenv("PYOCO_LOAD_DOTENV", off)
    assert Settings.from_env().default_tag == "default"


def test_another_file_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.env").write_text("# ours\nexport PYOCO_DEFAULT_TAG='gpu' # quoted\nOTHER=1\n")
    monkeypatch.setenv("PYOCO_ENV_FILE", "other.env")
    assert Settings.from_env().default_tag == "gpu"


def test_a_named_file_must_be_there_and_be_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_ENV_FILE", "other.env")
    with pytest.raises(InvalidSetting, match=r"PYOCO_ENV_FILE='other\.env': there is no such file"):
        Settings.from_env()
    Path("other.env").write_bytes(b"PYOCO_DEFAULT_TAG=\xff\xfe\n")
    with pytest.raises(InvalidSetting, match=r"other\.env is not UTF-8"):
        Settings.from_env()


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_LOG_LEVEL", "")
    assert Settings.from_env().log_level == "INFO"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYOCO_CONSUMER_ACK_WAIT_SEC", "soon"),
        ("PYOCO_CONSUMER_ACK_WAIT_SEC", "nan"),
        ("PYOCO_CONSUMER_ACK_WAIT_SEC", "inf"),
        ("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "0"),
        ("PYOCO_CANCEL_GRACE_PERIOD_SEC", "-1"),
        ("PYOCO_CONSUMER_MAX_DELIVER", "2.5"),
        ("PYOCO_DLQ_PUBLISH_EXECUTION_ERROR", "perhaps"),
        ("PYOCO_RUNS_KV_BUCKET", "a b"),
        ("PYOCO_WORK_SUBJECT_PREFIX", "pyoco.*"),
        ("PYOCO_WORK_SUBJECT_PREFIX", "pyoco."),
        ("PYOCO_LOG_LEVEL", "LOUD"),
        ("PYOCO_DASHBOARD_LANG", "fr"),
        ("PYOCO_HTTP_AUTH_MODE", "basic"),
        ("PYOCO_HTTP_API_KEY_HEADER", "X Key"),
        ("PYOCO_HTTP_ALLOWED_ORIGINS", "https://a.example, b.example"),
        ("PYOCO_HTTP_ALLOWED_ORIGINS", "https://a.example/path"),
        ("PYOCO_NATS_URL", "http://nats:4222"),
        ("PYOCO_NATS_URL", "nats://a:4222,nats://b:port"),
        ("PYOCO_NATS_URL", " , "),
        ("PYOCO_NATS_URL", "nats://a:4222,ws://b:80"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSetting) as error:
        Settings.from_env()
    assert f"{name}=" in error.value.message
    assert value.lower() in error.value.message.lower()
    assert "\n" not in error.value.message


def test_several_servers_may_be_named() -> None:
    settings = Settings(_env_file=None, nats_url="nats://u:secret@a:1, b , tls://c:3,")
    assert settings.nats_target().servers == ("nats://a:1", "nats://b", "tls://c:3")
    assert Connection(settings, "test").shown_url == "nats://a:1,nats://b,tls://c:3"


def test_the_password_in_an_address_that_cannot_be_used_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_NATS_URL", "nats://a:1,nats://u:secret@b:port")
    with pytest.raises(InvalidSetting, match="'nats://b:port' is not the address of a NATS server") as error:
        Settings.from_env()
    assert "secret" not in error.value.message


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_LOG_FORMAT", "xml")
    monkeypatch.setenv("PYOCO_NATS_REPLICAS", "9")
    with pytest.raises(InvalidSetting, match=r"PYOCO_NATS_REPLICAS='9'.*PYOCO_LOG_FORMAT='xml'"):
        Settings.from_env()


def test_a_bad_flag_is_called_by_its_name() -> None:
    with pytest.raises(InvalidSetting, match="the option --log-level='LOUD' cannot be used"):
        Settings.from_env(log_level="loud")


def test_progress_must_come_before_nats_gives_up_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "30")
    with pytest.raises(InvalidSetting, match=r"INTERVAL_SEC=30 must be less than PYOCO_CONSUMER_ACK_WAIT_SEC=30"):
        Settings.from_env()


@pytest.mark.parametrize("value", ["Text", "TEXT", " text "])
def test_case_and_spaces_do_not_matter_in_choices(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PYOCO_LOG_FORMAT", value)
    assert Settings.from_env().log_format == "text"


def test_the_pepper_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_AUTH_PEPPER", "cayenne")
    settings = Settings.from_env()
    assert settings.auth_pepper is not None and settings.auth_pepper.get_secret_value() == "cayenne"
    assert "cayenne" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_lists_of_hosts_and_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_HTTP_ALLOWED_HOSTS", "a.example, B.example")
    monkeypatch.setenv("PYOCO_HTTP_ALLOWED_ORIGINS", "https://A.example:8443/")
    settings = Settings.from_env()
    assert settings.http_allowed_hosts == ("a.example", "b.example")
    assert settings.http_allowed_origins == ("https://a.example:8443",)


def test_settings_are_frozen() -> None:
    settings: Any = Settings.from_env()
    with pytest.raises(ValidationError):
        settings.default_tag = "gpu"


def test_unknown_variables_are_told_with_the_closest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_NATS_ULR", "x")
    monkeypatch.setenv("PYOCO_OF_ANOTHER_PROGRAM", "x")
    monkeypatch.setenv("PYOCO_WHEEL_SYNC_DIR", "x")
    monkeypatch.setenv("PYOCO_SERVER", "x")
    assert unknown_variables() == [
        "PYOCO_NATS_ULR is not a setting; did you mean PYOCO_NATS_URL?",
        "PYOCO_OF_ANOTHER_PROGRAM is not a setting",
    ]


def test_no_setting_of_ours_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.setenv(variable(field), "")
    assert unknown_variables() == []


def test_user_code_gets_no_credential_but_everything_else() -> None:
    secret = {variable(field): "x" for field in ACCESS_FIELDS} | {"PYOCO_API_KEY": "x", "PYOCO_AUTH_PEPPER": "x"}
    assert {variable(field) for field, info in Settings.model_fields.items() if "Secret" in str(info.annotation)} <= {
        *secret
    }
    kept = {"PATH": "/bin", "PYOCO_SERVER": "http://h", "PYOCO_NATS_URL": "nats://h,tls://k:1"}
    assert without_secrets({**secret, **kept, "PYOCO_NATS_URL": "nats://u:x@h,tls://u:x@k:1"}) == kept


def test_how_long_runs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [Settings.from_env().kept_for(status) for status in ("COMPLETED", "FAILED", "CANCELLED")] == [0, 0, 0]
    monkeypatch.setenv("PYOCO_RUN_RETENTION_SEC", "3600")
    monkeypatch.setenv("PYOCO_RUN_RETENTION_FAILED_SEC", "0")
    monkeypatch.setenv("PYOCO_RUN_RETENTION_CANCELLED_SEC", "")
    monkeypatch.setenv("PYOCO_RUN_RETENTION_COMPLETED_SEC", "1.5")
    assert [Settings.from_env().kept_for(status) for status in ("COMPLETED", "FAILED", "CANCELLED")] == [1.5, 0, 3600]


@pytest.mark.parametrize("value", ["0.5", "-1", "1e12", "nan", "1d"])
def test_a_time_that_nats_cannot_count_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PYOCO_RUN_RETENTION_FAILED_SEC", value)
    with pytest.raises(InvalidSetting, match=f"PYOCO_RUN_RETENTION_FAILED_SEC='{value}' cannot be used"):
        Settings.from_env()


@pytest.mark.parametrize("names", ["a-b", "torch, 1x", "json:loads", "a..b"])
def test_a_module_to_preload_is_a_name(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_PRELOAD", names)
    with pytest.raises(InvalidSetting, match=r"PYOCO_PRELOAD=.* cannot be used: '.+' is no module's name") as caught:
        Settings.from_env()
    assert "alue error" not in caught.value.message


def test_modules_to_preload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_PRELOAD", " torch,scipy.stats torch ")
    assert Settings.from_env().preload == ("torch", "scipy.stats")
