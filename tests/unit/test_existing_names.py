"""The names that programs of the existing system use: a table of them, as ``inspect`` shows them there."""

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

import pyoco_server
from pyoco_server import NatsBackendConfig, admin_cli
from pyoco_server.config import settings_of
from pyoco_server.errors import InvalidSetting
from pyoco_server.gateway.app import create_app
from pyoco_server.settings.environment import Settings

# Name: its parameters there, in order; "*" before those that are given by name, "=" behind those that may be left out.
CALLS = {
    "NatsBackendConfig.from_env": "",
    "ensure_resources": "js config",
    "configure_logging": "* service",
    "PyocoNatsClient": "nc config=",
    "PyocoNatsClient.connect": "config=",
    "PyocoNatsClient.submit_run": "flow_name params= * tag= tags=",
    "PyocoNatsClient.get_run": "run_id",
    "PyocoNatsClient.close": "",
    "PyocoNatsWorker": "nc * config= flow_resolver worker_id= tags=",
    "PyocoNatsWorker.connect": "* config= flow_resolver worker_id= tags=",
    "PyocoNatsWorker.run_once": "timeout=",
    "PyocoNatsWorker.close": "",
    "PyocoHttpClient": "base_url * api_key= api_key_header=",
    "PyocoHttpClient.close": "",
    "PyocoHttpClient.submit_run": "flow_name params= * tag= tags=",
    "PyocoHttpClient.submit_run_yaml": "workflow_yaml * flow_name tag",
    "PyocoHttpClient.get_run": "run_id",
    "PyocoHttpClient.get_run_with_records": "run_id",
    "PyocoHttpClient.get_tasks": "run_id",
    "PyocoHttpClient.cancel_run": "run_id * wait= timeout_sec=",
    "PyocoHttpClient.list_runs": "* status= flow= tag= full= limit=",
    "PyocoHttpClient.list_runs_vnext":
        "* status= flow= tag= full= limit= updated_after= cursor= workflow_yaml_sha256=",
    "PyocoHttpClient.watch_run": "run_id * include_records= since= timeout_sec=",
    "PyocoHttpClient.get_workers": "* scope= state= include_hidden= limit=",
    "PyocoHttpClient.patch_worker_hidden": "worker_id * hidden",
    "PyocoHttpClient.list_wheels": "",
    "PyocoHttpClient.list_wheel_history": "* limit= wheel_name= action=",
    "PyocoHttpClient.upload_wheel": "* filename data replace= tags=",
    "PyocoHttpClient.delete_wheel": "wheel_name",
    "PyocoHttpClient.get_metrics": "",
}  # fmt: skip
ASYNC = {"ensure_resources", *(name for name in CALLS if name.startswith("PyocoNats") and "." in name)}
FIELDS = """
    nats_url work_stream work_subject_prefix default_tag consumer_prefix runs_kv_bucket workers_kv_bucket
    workers_kv_ttl_sec http_auth_mode http_api_key_header auth_kv_bucket auth_pepper run_heartbeat_interval_sec
    worker_heartbeat_interval_sec worker_disconnect_timeout_sec cancel_grace_period_sec ack_progress_interval_sec
    consumer_ack_wait_sec consumer_max_deliver consumer_max_ack_pending dlq_stream dlq_subject_prefix dlq_max_age_sec
    dlq_max_msgs dlq_max_bytes dlq_publish_execution_error max_run_snapshot_bytes wheel_object_store_bucket
    wheel_sync_enabled wheel_sync_dir wheel_sync_interval_sec wheel_install_timeout_sec wheel_max_bytes
    wheel_history_kv_bucket wheel_history_ttl_sec workflow_yaml_max_bytes dashboard_lang
""".split()
MODULES = {
    "config": "NatsBackendConfig", "resources": "ensure_resources", "client": "PyocoNatsClient",
    "http_client": "PyocoHttpClient", "worker": "PyocoNatsWorker", "logging_config": "configure_logging",
    "http_api": "create_app", "server_cli": "main", "worker_cli": "main", "client_cli": "main", "admin_cli": "main",
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_was_good_there_is_good_here(name: str) -> None:
    owner, _, method = name.partition(".")
    found: Any = getattr(pyoco_server, owner)
    own = method and inspect.isfunction(inspect.getattr_static(found, method))
    found = getattr(found, method) if method else found
    signature = inspect.signature(found)
    words = ["self"] * bool(own) + CALLS[name].split()
    named = words.index("*") if "*" in words else len(words)
    signature.bind(*words[:named], **dict.fromkeys([word.rstrip("=") for word in words[named + 1 :]]))
    needed = {word for word in words if not word.endswith("=") and word != "*"}
    required = {key for key, each in signature.parameters.items() if each.default is each.empty}
    assert required <= needed
    places = [key for key, each in signature.parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert places[:named] == [word.rstrip("=") for word in words[:named]]
    assert inspect.iscoroutinefunction(found) is (name in ASYNC)


@pytest.mark.parametrize(("module", "name"), MODULES.items())
def test_where_it_is_imported_from(module: str, name: str) -> None:
    home = __import__(f"pyoco_server.{module}", fromlist=[name])
    assert callable(getattr(home, name))
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        home.nothing_of_this_name  # noqa: B018
    if name in pyoco_server.__all__:
        assert getattr(home, name) is getattr(pyoco_server, name)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["server_cli", "worker_cli", "client_cli", "admin_cli"])
def test_python_m(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"pyoco_server.{module}", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("Usage: pyoco-")


def test_the_settings_are_a_plain_dataclass_with_the_same_fields_and_defaults() -> None:
    assert [each.name for each in dataclasses.fields(NatsBackendConfig)] == FIELDS
    config = NatsBackendConfig("nats://10.0.0.1:4222", "MY_WORK", default_tag="cpu")
    assert (config.nats_url, config.work_stream, config.default_tag) == ("nats://10.0.0.1:4222", "MY_WORK", "cpu")
    assert dataclasses.asdict(config)["runs_kv_bucket"] == "pyoco_runs"
    assert dataclasses.replace(config, dlq_max_msgs=7).dlq_max_msgs == 7
    assert NatsBackendConfig(**{**config.__dict__, "auth_pepper": "p"}) != config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.nats_url = "other"  # type: ignore[misc]
    with pytest.raises(TypeError, match="no_such_field"):
        NatsBackendConfig(no_such_field=1)  # type: ignore[call-arg]
    settings = Settings(_env_file=None)
    assert {name: getattr(NatsBackendConfig(), name) for name in FIELDS} == {
        name: str(getattr(settings, name)) if name == "wheel_sync_dir" else getattr(settings, name) for name in FIELDS
    }
    shown = repr(NatsBackendConfig("nats://u:secret-word@h", auth_pepper="secret-word"))
    assert "secret-word" not in shown


def test_the_environment_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYOCO_DEFAULT_TAG", "gpu")
    monkeypatch.setenv("PYOCO_AUTH_PEPPER", "p")
    monkeypatch.setenv("PYOCO_RUN_MAX_ATTEMPTS", "7")
    monkeypatch.setenv("PYOCO_WHEEL_SYNC_DIR", "/w")
    read, made = NatsBackendConfig.from_env(), NatsBackendConfig()
    assert (read.default_tag, read.auth_pepper, read.wheel_sync_dir) == ("gpu", "p", "/w")
    assert (made.default_tag, made.auth_pepper) == ("default", None)
    assert settings_of(read) == settings_of(None) == Settings.from_env()
    # What a program has said holds, and what it cannot say is the environment's.
    settings = settings_of(made)
    assert (settings.default_tag, settings.auth_pepper, settings.run_max_attempts) == ("default", None, 7)
    monkeypatch.setenv("PYOCO_DEFAULT_TAG", "a.b")
    with pytest.raises(InvalidSetting, match=r"PYOCO_DEFAULT_TAG='a\.b'"):
        NatsBackendConfig.from_env()


def test_a_value_that_cannot_be_used_is_named() -> None:
    with pytest.raises(InvalidSetting, match=r"default_tag of the NatsBackendConfig='a\.b' cannot be used"):
        settings_of(NatsBackendConfig(default_tag="a.b"))
    with pytest.raises(InvalidSetting, match="nats_url of the NatsBackendConfig") as told:
        settings_of(NatsBackendConfig("bogus://user:secret-word@x"))
    assert "secret-word" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nope", "nope"), ("pyoco_" + "a1" * 12 + "." + "S" * 43, "a1" * 12), ("S" * 43, None), ("pyoco_a1", None),
        ("a.b", None),
    ],
)  # fmt: skip
def test_a_key_that_is_not_there_is_told_to_programs_and_to_people(
    given: str, told: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert admin_cli.main(["api-key", "revoke", "--key-id", given]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out) == {"error": "not_found", "key_id": told}
    assert "no api key has this id" in said.err and "S" * 43 not in said.out + said.err


@pytest.mark.anyio
async def test_health_answers_before_anything_has_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYOCO_NATS_URL", "nats://127.0.0.1:1")
    transport = httpx2.ASGITransport(app=create_app(Settings.from_env()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        answer = await client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
