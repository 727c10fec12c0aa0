"""Who is let in from elsewhere: nobody, unless keys are asked for or it is said that this is meant."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from .conftest import BIN, Process

pytestmark = pytest.mark.slow

AWAY = ["--port", "0", "--nats-url", "nats://127.0.0.1:9"]


def test_another_address_without_keys_stops_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "pyoco-server", "up", "--host", "0.0.0.0", *AWAY],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout
    assert "0.0.0.0" in done.stderr and "PYOCO_HTTP_AUTH_MODE=api_key" in done.stderr and "--insecure" in done.stderr


def test_another_address_for_nats_stops_the_start_with_keys_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "pyoco-server", "up", "--port", "0", "--with-nats", "--nats-client-port", "-1", "--nats-http-port", "-1",
         "--nats-listen-host", "0.0.0.0"],
        cwd=tmp_path, env={**os.environ, "PYOCO_HTTP_AUTH_MODE": "api_key"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert all(word in done.stderr for word in ("--nats-listen-host", "--nats-url", "--insecure"))
    assert not (tmp_path / ".pyoco/nats/nats-server.conf").exists()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    started: list[Process] = []

    def up(*options: str, **environment: str) -> tuple[Process, str]:
        process = Process(["pyoco-server", "up", *options, *AWAY], tmp_path, **environment)
        started.append(process)
        return process, process.wait_for("pyoco-server is up")["url"]

    yield up
    for process in started:
        process.stop()


def test_it_starts_when_it_is_meant_and_says_so(start) -> None:  # type: ignore[no-untyped-def]
    process, url = start("--host", "0.0.0.0", "--insecure")
    assert httpx2.get(f"{url}/health").status_code == 200
    process.stop()
    told = [line for line in process.lines if line["message"].startswith("serving without keys")]
    assert [line["address"] for line in told] == ["0.0.0.0"]


def test_nats_starts_when_it_is_meant_and_says_so(tmp_path: Path) -> None:
    options = ["--with-nats", "--nats-client-port", "-1", "--nats-http-port", "-1", "--nats-listen-host", "0.0.0.0"]
    process = Process(["pyoco-server", "up", "--port", "0", *options, "--insecure"], tmp_path)
    try:
        url = process.wait_for("pyoco-server is up")["url"]
        assert httpx2.get(f"{url}/ready").status_code == 200
    finally:
        process.stop()
    told = [line for line in process.lines if line["message"].startswith("NATS lets everybody in")]
    assert [line["address"] for line in told] == ["0.0.0.0"]


def test_it_starts_with_keys(start) -> None:  # type: ignore[no-untyped-def]
    _, url = start("--host", "0.0.0.0", PYOCO_HTTP_AUTH_MODE="api_key")
    assert httpx2.get(f"{url}/runs").status_code == 401


def test_a_name_of_this_machine_is_no_other_address(start) -> None:  # type: ignore[no-untyped-def]
    _, url = start("--host", "localhost", PYOCO_HTTP_ALLOWED_ORIGINS="https://pyoco.example.com")
    assert httpx2.get(f"{url}/health", headers={"host": "localhost:1"}).status_code == 200
    rebound = httpx2.get(f"{url}/runs", headers={"host": "evil.example"})
    assert (rebound.status_code, rebound.json()["code"]) == (403, "foreign_host")
    assert "PYOCO_HTTP_ALLOWED_HOSTS" in rebound.json()["hint"]
    foreign = httpx2.post(f"{url}/runs", json={"flow_name": "f"}, headers={"origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign_origin")
    assert "PYOCO_HTTP_ALLOWED_ORIGINS" in foreign.json()["hint"]
    named = httpx2.post(f"{url}/runs", json={"flow_name": "f"}, headers={"origin": "https://pyoco.example.com"})
    assert named.status_code == 503  # it came as far as NATS, which is away
