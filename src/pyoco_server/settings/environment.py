"""Every setting, once: its variable, its default, its bounds.

Precedence: a command-line flag over the process environment over the ``.env`` file over the default.
A value that cannot be read stops the start with the name of the variable and the value.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict
from typing_extensions import Self

from pyoco_server.errors import InvalidSetting
from pyoco_server.model.prefixes import check_prefix
from pyoco_server.settings.nats import ACCESS_FIELDS, NatsSettings, Subject, without_users

_PREFIX = "PYOCO_"
_FALSE = {"0", "false", "no", "off"}
# Read by the pyoco library itself, or before the settings exist: known, though they are no fields here.
_FOREIGN = {"PYOCO_LOAD_DOTENV", "PYOCO_ENV_FILE", "PYOCO_DISCOVERY_MODULES", "PYOCO_CUTE"} | {
    "PYOCO_RUN_PATH",
    "PYOCO_RUN_PYTHON",  # of ours, in a run's own environment
}
_URL = f"{_PREFIX}NATS_URL"
"""It may hold a user and a password, and is of use without them."""
_SECRET = {_PREFIX + field.upper() for field in ACCESS_FIELDS} | {f"{_PREFIX}API_KEY"}
_REMEMBERED: dict[str, str] = {}
KEYS_FIELDS = ("auth_pepper", *(field for field in ACCESS_FIELDS if field.startswith("auth_")))
"""Settings that open the keys."""
# Of the outside contract, but for parts that are still to be built; setting them does no harm.
_LATER = {
    "PYOCO_YAML_SCHEDULES_KV_BUCKET",
}  # fmt: skip


def _check_kept(seconds: float) -> float:
    if 0 < seconds < 1:
        raise ValueError("it must be 0 (keep for ever) or at least 1 second")
    return seconds


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$", max_length=64)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _split(words: object) -> object:
    if not isinstance(words, str):
        return words
    return tuple(dict.fromkeys(word.lower().rstrip("/") for word in re.split(r"[\s,]+", words) if word))


def _split_modules(names: object) -> object:
    if not isinstance(names, str):
        return names
    modules = tuple(dict.fromkeys(name for name in re.split(r"[\s,]+", names) if name))
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is no module's name, such as torch or scipy.stats")
    return modules


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[^\s/:@]+)(:[0-9]{1,5})?", origin):
            raise ValueError(f"{origin!r} is no origin, such as https://pyoco.example.com")
    return origins


def _check_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValueError(f"write addresses or networks, such as 127.0.0.1, 10.1.0.0/16: {error}") from None
    return networks


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Modules = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_modules)]
Kept = Annotated[float, Field(ge=0, le=100 * 365 * 24 * 3600, allow_inf_nan=False), AfterValidator(_check_kept)]
"""Seconds for which something is kept; 0: for ever. NATS counts whole seconds."""
Count = Annotated[int, Field(gt=0)]


class Settings(NatsSettings):
    """All settings of gateway, worker and commands. Frozen; change by ``model_copy(update=…)``."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, env_file_encoding="utf-8",
        hide_input_in_errors=True,
    )  # fmt: skip

    # The names of what we keep in NATS.
    nats_replicas: Annotated[int, Field(ge=1, le=5)] = 1
    work_stream: Name = "PYOCO_WORK"
    work_subject_prefix: Subject = "pyoco.work"
    default_tag: Name = "default"
    consumer_prefix: Name = "pyoco_workers"
    runs_kv_bucket: Name = "pyoco_runs"
    flows_kv_bucket: Name = "pyoco_flows"
    workers_kv_bucket: Name = "pyoco_workers"
    control_subject_prefix: Subject = "pyoco.control"

    # A consumer is created once per tag with these; an existing one keeps its own.
    consumer_ack_wait_sec: Seconds = 30.0
    consumer_max_deliver: Count = 20
    consumer_max_ack_pending: Count = 200
    ack_progress_interval_sec: Seconds = 10.0

    run_heartbeat_interval_sec: Seconds = 1.0
    """Shortest time between two progress writes of one run."""
    worker_heartbeat_interval_sec: Seconds = 5.0
    workers_kv_ttl_sec: SecondsOrZero = 15.0
    """Kept for older configurations; has no effect: worker records do not expire by themselves."""
    worker_disconnect_timeout_sec: Seconds = 20.0
    worker_forget_after_sec: SecondsOrZero = 7 * 24 * 3600.0
    """Age at which the record of a worker that is gone is removed; 0: never."""
    cancel_grace_period_sec: SecondsOrZero = 30.0
    run_max_attempts: Count = 3

    isolation: Literal["process", "shared"] = "process"
    """Whether each run has a process of its own, or runs of one tenant, flow and environment may share one."""
    preload: Modules = ()
    """Modules that a worker imports once for all runs."""
    confine_tasks: Literal["auto", "on", "off"] = "auto"
    """Whether tasks are kept from the processes around them; ``auto``: where keys are on, or with ``run_as``."""
    run_as: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?$")] | None = None
    """The user as whom runs' processes run; unset: the worker's own."""
    run_exit_wait_sec: SecondsOrZero = 10.0
    """How long a run waits, after its last task, for the threads and ``atexit`` functions that its tasks left."""

    reconcile_interval_sec: Seconds = 3.0
    reconcile_after_sec: Seconds = 15.0
    """How long a run waits before the gateway looks whether its job is on the queue."""

    dlq_stream: Name = "PYOCO_DLQ"
    dlq_subject_prefix: Subject = "pyoco.dlq"
    dlq_publish_execution_error: bool = True
    dlq_max_age_sec: SecondsOrZero = 7 * 24 * 3600.0
    dlq_max_msgs: int = 100_000
    dlq_max_bytes: int = 512 * 1024 * 1024
    advisory_stream: Name = "PYOCO_ADVISORIES"
    """Keeps what the server itself says of jobs that it gave up, until a gateway has looked at them."""

    logs_stream: Name = "PYOCO_LOGS"
    logs_subject_prefix: Subject = "pyoco.logs"
    logs_max_age_sec: SecondsOrZero = 7 * 24 * 3600.0
    logs_max_bytes: int = 1024 * 1024 * 1024
    """All runs together; NATS sets it aside. The oldest go first."""
    run_log_max_bytes: Annotated[int, Field(ge=4096)] = 10 * 1024 * 1024
    """One attempt of one run; beyond it the output is cut, never the run."""

    audit_stream: Name = "PYOCO_AUDIT"
    audit_subject_prefix: Subject = "pyoco.audit"
    audit_max_age_sec: SecondsOrZero = 90 * 24 * 3600.0
    audit_max_msgs: Count = 100_000
    """Of these, a tenth at most are of one key doing one thing."""
    audit_max_bytes: Count = 64 * 1024 * 1024
    """NATS sets it aside. The oldest go first."""

    run_retention_sec: Kept = 0.0
    """How long a run is kept after its end."""
    run_retention_completed_sec: Kept | None = None
    """The same for one status; unset: the general one."""
    run_retention_failed_sec: Kept | None = None
    run_retention_cancelled_sec: Kept | None = None
    run_retention_max_runs: Annotated[int, Field(ge=0)] = 0
    """How many ended runs are kept; 0: however many there are."""
    store_full_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of NATS's room from which on submissions are refused."""
    disk_free_min_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """Free room on the disk with NATS's data below which submissions are refused."""
    nats_store_dir: Path | None = None
    """NATS's data, where it is on this machine."""
    flow_retention_sec: Annotated[float, Field(ge=60, allow_inf_nan=False)] = 3600.0
    """How long the text of a flow is kept that no run and no dead letter needs."""
    retention_interval_sec: Seconds = 5.0
    """How often a gateway looks for what need not be kept any longer."""

    max_run_snapshot_bytes: Annotated[int, Field(ge=4096)] = 256 * 1024
    workflow_yaml_max_bytes: Annotated[int, Field(ge=256)] = 256 * 1024

    wheel_object_store_bucket: Name = "pyoco_wheels"
    wheel_max_bytes: Annotated[int, Field(ge=1024)] = 512 * 1024 * 1024
    wheel_history_kv_bucket: Name = "pyoco_wheel_history"
    wheel_history_ttl_sec: SecondsOrZero = 90 * 24 * 3600.0
    """For how long uploads and deletions are remembered; 0: for ever."""
    wheel_sync_enabled: bool = False
    wheel_sync_dir: Path = Path(".pyoco/wheels")
    wheel_sync_interval_sec: Seconds = 10.0
    """How often a worker looks at the wheels although nobody told it of a change."""
    wheel_install_timeout_sec: Seconds = 180.0
    wheel_install_deps: bool = False
    """Whether a worker fetches what wheels need from an index."""

    http_auth_mode: Literal["none", "api_key"] = "none"
    http_api_key_header: HeaderName = "X-API-Key"
    auth_kv_bucket: Name = "pyoco_auth"
    auth_pepper: SecretStr | None = None
    """With another one every key that was made before is refused."""
    http_allowed_origins: Annotated[Words, AfterValidator(_check_origins)] = ()
    """Pages of other sites that may send changes."""
    http_allowed_hosts: Words = ()
    """Names under which the server may be asked for, beside addresses and localhost."""

    http_max_connections: Annotated[int, Field(ge=8)] = 8192
    """Of clients, at a time; fewer where the process may not have so many descriptors."""
    http_max_connections_per_address: Count | None = None
    """Unset: a quarter of all. Loopback and trusted proxies, which many clients come through, have no bound."""

    root_path: Annotated[str, AfterValidator(check_prefix)] = ""
    """Path under which a proxy serves the gateway."""
    trusted_proxies: Annotated[Words, AfterValidator(_check_networks)] = ()
    """Proxies that may tell another one. Nobody by default: on its own machine anybody could be the proxy."""

    dashboard_lang: Literal["auto", "ja", "en"] = "auto"
    state_dir: Path = Path(".pyoco")
    """Where this machine's own files live: the embedded NATS's data, the index, run directories."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["json", "text"] = "json"
    log_utc: bool = True
    log_include_traceback: bool = True

    @model_validator(mode="before")
    @classmethod
    def _accept_any_case(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for field, fold in (("log_level", str.upper), ("log_format", str.lower), ("dashboard_lang", str.lower)):
                if isinstance(data.get(field), str):
                    data[field] = fold(data[field].strip())
        return data

    @model_validator(mode="after")
    def _ack_before_ack_wait(self) -> Self:
        if self.ack_progress_interval_sec >= self.consumer_ack_wait_sec:
            raise ValueError(
                f"PYOCO_ACK_PROGRESS_INTERVAL_SEC={self.ack_progress_interval_sec:g} must be less than "
                f"PYOCO_CONSUMER_ACK_WAIT_SEC={self.consumer_ack_wait_sec:g}, "
                "or NATS would give a running run to a second worker"
            )
        return self

    @property
    def own_nats_store(self) -> Path:
        """Where a NATS that we start keeps its data."""
        return self.nats_store_dir or self.state_dir / "nats"

    def kept_for(self, status: str) -> float:
        """Tell for how many seconds a run is kept that ended with a status; 0: for ever."""
        own = {
            "COMPLETED": self.run_retention_completed_sec,
            "FAILED": self.run_retention_failed_sec,
            "CANCELLED": self.run_retention_cancelled_sec,
        }.get(status)
        return self.run_retention_sec if own is None else own

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """Read the environment and the ``.env`` file.

        Args:
            overrides: Values given on the command line; ``None`` means not given.

        Raises:
            InvalidSetting: a value cannot be read; the message names the variable and the value.
        """
        return cls._read({name: value for name, value in overrides.items() if value is not None}, _option)

    @classmethod
    def from_program(cls, name: str, values: Mapping[str, Any]) -> Self:
        """Return the settings that a program has given; what it does not know is read from the environment.

        Args:
            name: What it has given them in, for messages.
            values: By field; ``None`` is a value too.

        Raises:
            InvalidSetting: one cannot be used; the message names it.
        """
        return cls._read(dict(values), lambda field: f"{field} of the {name}")

    @classmethod
    def _read(cls, given: dict[str, Any], called: Callable[[str], str]) -> Self:
        try:
            # pydantic-settings takes _env_file here; its stubs hide it behind the field names.
            settings = cls(_env_file=dotenv_path(), **{**_given_again(), **given})
        except ValidationError as error:
            raise InvalidSetting("; ".join(_describe(item, given, called) for item in error.errors())) from None
        except UnicodeDecodeError as error:
            raise InvalidSetting(f"the file {dotenv_path()} is not UTF-8 text: {error}") from None
        settings.check_files()
        return settings


def unknown_variables() -> list[str]:
    """Tell PYOCO_ variables that no setting reads, each with the closest known name, for a warning."""
    known = {variable(name) for name in Settings.model_fields} | _FOREIGN | _LATER | {"PYOCO_SERVER", "PYOCO_API_KEY"}
    lines = []
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            # Without the prefix that all of them share, or everything would look alike.
            words = [word.removeprefix(_PREFIX) for word in known]
            close = difflib.get_close_matches(name.removeprefix(_PREFIX), words, n=1)
            lines.append(f"{name} is not a setting" + (f"; did you mean {_PREFIX}{close[0]}?" if close else ""))
    return lines


def variable(field: str) -> str:
    """Give the environment variable of a field."""
    return _PREFIX + field.upper()


def is_secret(name: str) -> bool:
    """Whether a variable may hold what opens NATS, the HTTP API, or the keys of others."""
    return name in _SECRET or name.startswith(f"{_PREFIX}AUTH_")


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Give an environment for user code: without what opens NATS, the HTTP API, or the keys of others."""
    kept = {name: value for name, value in environment.items() if not is_secret(name)}
    for name in {_URL} & kept.keys():
        kept[name] = without_users(kept[name])
    return kept


def remember(secrets: Mapping[str, str]) -> None:
    """Keep variables that are wiped from the environment: settings that are read again have them all the same."""
    _REMEMBERED.update(secrets)


def _given_again() -> dict[str, str]:
    """Return by field what stood in the environment before it was wiped, unless something else stands there now."""
    fields = {variable(field): field for field in Settings.model_fields}
    return {
        fields[name]: value
        for name, value in _REMEMBERED.items()
        if name in fields and os.environ.get(name, "") in ("", without_users(value) if name == _URL else "")
    }


def dotenv_path() -> Path | None:
    """Return where the ``.env`` is, whether or not it is there; ``None`` where none is to be read.

    Raises:
        InvalidSetting: it is named, and is not there.
    """
    if os.environ.get("PYOCO_LOAD_DOTENV", "1").strip().lower() in _FALSE:
        return None
    named = os.environ.get("PYOCO_ENV_FILE", "").strip()
    path = Path(named or ".env").expanduser()
    if named and not path.is_file():
        raise InvalidSetting(f"PYOCO_ENV_FILE={named!r}: there is no such file")
    return path


def _option(field: str) -> str:
    return f"the option --{field.replace('_', '-')}"


def _describe(item: Any, given: dict[str, Any], called: Callable[[str], str]) -> str:
    if not item["loc"]:  # from a validator over several fields, which names them itself
        return str(item["msg"]).removeprefix("Value error, ")
    field = str(item["loc"][0])
    value = _raw(field, item["input"])
    source = called(field) if field in given else variable(field)
    said = str(item["msg"]).removeprefix("Value error, ")  # of a validator of ours
    return f"{source}={value!r} cannot be used: {said[0].lower()}{said[1:]}"


def _raw(field: str, parsed: Any) -> Any:
    secret = any(word in field for word in ("pepper", "password", "token"))
    return "…" if secret or ("url" in field and "@" in str(parsed)) else parsed
