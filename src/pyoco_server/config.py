"""The settings as programs of the existing system make them: a plain dataclass, for a worker or client of their own."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Self

from pyoco_server.settings.environment import Settings


@dataclass(frozen=True)
class NatsBackendConfig:
    """What a program says of NATS and of its worker; all else (credentials, say) is read from the environment.

    Making one reads nothing and checks nothing; ``from_env`` reads the environment. Values are checked where it is
    used. Names, order and defaults are those of the existing system.
    """

    nats_url: str = field(default="nats://127.0.0.1:4222", repr=False)
    work_stream: str = "PYOCO_WORK"
    work_subject_prefix: str = "pyoco.work"
    default_tag: str = "default"
    consumer_prefix: str = "pyoco_workers"
    runs_kv_bucket: str = "pyoco_runs"
    workers_kv_bucket: str = "pyoco_workers"
    workers_kv_ttl_sec: float = 15.0
    http_auth_mode: str = "none"
    http_api_key_header: str = "X-API-Key"
    auth_kv_bucket: str = "pyoco_auth"
    auth_pepper: str | None = field(default=None, repr=False)
    run_heartbeat_interval_sec: float = 1.0
    worker_heartbeat_interval_sec: float = 5.0
    worker_disconnect_timeout_sec: float = 20.0
    cancel_grace_period_sec: float = 30.0
    ack_progress_interval_sec: float = 10.0
    consumer_ack_wait_sec: float = 30.0
    consumer_max_deliver: int = 20
    consumer_max_ack_pending: int = 200
    dlq_stream: str = "PYOCO_DLQ"
    dlq_subject_prefix: str = "pyoco.dlq"
    dlq_max_age_sec: float = 7 * 24 * 3600.0
    dlq_max_msgs: int = 100_000
    dlq_max_bytes: int = 512 * 1024 * 1024
    dlq_publish_execution_error: bool = True
    max_run_snapshot_bytes: int = 256 * 1024
    wheel_object_store_bucket: str = "pyoco_wheels"
    wheel_sync_enabled: bool = False
    wheel_sync_dir: str = ".pyoco/wheels"
    wheel_sync_interval_sec: float = 10.0
    wheel_install_timeout_sec: float = 180.0
    wheel_max_bytes: int = 512 * 1024 * 1024
    wheel_history_kv_bucket: str = "pyoco_wheel_history"
    wheel_history_ttl_sec: float = 90 * 24 * 3600.0
    workflow_yaml_max_bytes: int = 256 * 1024
    dashboard_lang: str = "auto"

    @classmethod
    def from_env(cls) -> Self:
        """Read the environment and the ``.env`` file.

        Raises:
            InvalidSetting: a value cannot be read; the message names the variable and the value.
        """
        settings = Settings.from_env()
        pepper = settings.auth_pepper
        values: dict[str, Any] = {each.name: getattr(settings, each.name) for each in dataclasses.fields(cls)}
        values |= {
            "auth_pepper": pepper.get_secret_value() if pepper else None,
            "wheel_sync_dir": str(settings.wheel_sync_dir),
        }
        return cls(**values)

    def settings(self) -> Settings:
        """Return the settings that it stands for.

        Raises:
            InvalidSetting: a value cannot be used; the message names it.
        """
        return Settings.from_program(type(self).__name__, dataclasses.asdict(self))


def settings_of(config: Settings | NatsBackendConfig | None) -> Settings:
    """Return the settings that a program has given.

    Args:
        config: Settings, or what stands for them; ``None``: those of the environment.

    Raises:
        InvalidSetting: a value cannot be used.
    """
    if config is None:
        return Settings.from_env()
    return config if isinstance(config, Settings) else config.settings()
