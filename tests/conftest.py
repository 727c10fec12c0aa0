"""What every kind of test may use: a real nats-server, settings of one's own in it, and asyncio."""

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from anyio.from_thread import start_blocking_portal
from hypothesis import settings as hypothesis_settings
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ProcessorFormatter

from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.settings.environment import Settings

# A timing is never a test's assertion: machines are busy.
hypothesis_settings.register_profile("patient", deadline=None)
hypothesis_settings.load_profile("patient")


# Exceptions in the log are read by nobody here, and drawing one with all its variables takes seconds.
for _processor in structlog.get_config()["processors"]:
    if isinstance(_processor, ConsoleRenderer):
        _processor.exception_formatter = plain_traceback


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What tests marked ``anyio`` run on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_pyoco_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("PYOCO_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_logging_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command that ran in this process set up: a cached logger would keep it for the tests that follow."""
    configure, root = structlog.configure, logging.getLogger()
    level = root.level
    monkeypatch.setattr(structlog, "configure", lambda **how: configure(**{**how, "cache_logger_on_first_use": False}))
    yield
    structlog.reset_defaults()
    root.handlers[:] = [each for each in root.handlers if not isinstance(each.formatter, ProcessorFormatter)]
    root.setLevel(level)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server on free ports, the same one for all tests; ``url`` says where."""
    server = NatsServer(tmp_path_factory.mktemp("nats"), client_port=-1, http_port=-1)
    # Its own event loop, in a thread that lives as long as the tests do, so that no test's loop can end it.
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield server


@pytest.fixture
def settings(nats_server: NatsServer, tmp_path: Path) -> Settings:
    """Settings whose streams, buckets and subjects no other test has."""
    mine = uuid.uuid4().hex[:12]
    return Settings(
        _env_file=None,
        nats_url=nats_server.url,
        state_dir=tmp_path,
        work_stream=f"WORK_{mine}",
        work_subject_prefix=f"work.{mine}",
        runs_kv_bucket=f"runs_{mine}",
        flows_kv_bucket=f"flows_{mine}",
        workers_kv_bucket=f"workers_{mine}",
        dlq_stream=f"DLQ_{mine}",
        dlq_subject_prefix=f"dlq.{mine}",
        dlq_max_bytes=1024 * 1024,  # NATS sets it aside for every stream at once
        advisory_stream=f"ADVISORIES_{mine}",
        logs_stream=f"LOGS_{mine}",
        logs_subject_prefix=f"logs.{mine}",
        logs_max_bytes=1024 * 1024,
        audit_stream=f"AUDIT_{mine}",
        audit_subject_prefix=f"audit.{mine}",
        audit_max_bytes=1024 * 1024,
        wheel_object_store_bucket=f"wheels_{mine}",
        wheel_history_kv_bucket=f"wheel_history_{mine}",
        auth_kv_bucket=f"auth_{mine}",
        wheel_sync_dir=tmp_path / "wheels",
        control_subject_prefix=f"control.{mine}",
        consumer_prefix=f"workers_{mine}",
    )
