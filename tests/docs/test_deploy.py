"""What lies in deploy/ names commands, options, variables and files that exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pyoco_server.cli import server, worker
from pyoco_server.embedded.nats_server import _find_binary
from pyoco_server.settings.environment import _FOREIGN, Settings, variable

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
HOW_TO = (ROOT / "docs/how-to/several-machines.md").read_text()
HANDING_BACK_SEC = 30
"""What a worker needs beside its drain time at most, until it is gone."""
KNOWN = {variable(field) for field in Settings.model_fields} | _FOREIGN


def unit(name: str) -> dict[str, list[str]]:
    """Read a unit: the values of each directive, whatever its section."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def check_command(words: list[str]) -> dict[str, Any]:
    """Let the real command read its arguments; what it understood is the answer."""
    program, *arguments = words
    if Path(program).name == "pyoco-worker":
        return worker.command.make_context(program, arguments).params
    assert (Path(program).name, arguments[0]) == ("pyoco-server", "up")
    return server.command.commands["up"].make_context("up", arguments[1:]).params


@pytest.mark.parametrize("name", ["pyoco-server.service", "pyoco-worker@.service"])
def test_our_units(name: str) -> None:
    directives = unit(name)
    (line,) = directives["ExecStart"]
    for words, value in (("${GATEWAY_HOST}", "10.0.0.1"), ("${GATEWAY_PORT}", "8000"), ("$WORKER_OPTIONS", "--tags a")):
        line = line.replace(words, value)
    options = check_command(shlex.split(line))
    assert directives["KillMode"] == ["mixed"]
    assert float(directives["TimeoutStopSec"][0]) >= options.get("drain_timeout_sec", 0) + HANDING_BACK_SEC
    assert (directives["Restart"], directives["User"]) == (["always"], ["pyoco"])
    assert directives["EnvironmentFile"][0] == "/etc/pyoco/pyoco.env"
    assert {"NoNewPrivileges", "ProtectSystem", "ProtectHome", "StateDirectory"} <= set(directives)
    assert set(re.findall(r"(PYOCO_\w+)=", " ".join(directives["Environment"]))) <= KNOWN


def test_a_task_that_takes_all_memory_does_not_stop_its_worker() -> None:
    assert unit("pyoco-worker@.service")["OOMPolicy"] == ["continue"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_every_directive(path: Path, tmp_path: Path) -> None:
    here = tmp_path / path.name
    here.write_text(re.sub(r"^(ExecStart|ExecReload)=\S+", r"\1=/bin/true", path.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, text=True)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_nats_understands_its_configuration() -> None:
    nats = unit("nats.service")
    assert nats["KillSignal"] == ["SIGUSR2"] and float(nats["TimeoutStopSec"][0]) > 35  # the lame duck's time
    path = DEPLOY / "nats/cluster.conf"
    environment = {**os.environ, "NATS_NAME": "nats-1"}
    done = subprocess.run([_find_binary(), "-t", "-c", str(path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_example_of_settings_can_be_used() -> None:
    text = (DEPLOY / "pyoco.env.example").read_text()
    given = dict(re.findall(r"^(\w+)=(.*)$", text, flags=re.MULTILINE))
    ours = {name: value for name, value in given.items() if name.startswith("PYOCO_") and value}
    assert set(ours) <= KNOWN
    settings = Settings(_env_file=None, **{name.removeprefix("PYOCO_").lower(): value for name, value in ours.items()})
    assert (len(settings.nats_target().servers), settings.nats_replicas) == (3, 3)
    assert settings.http_auth_mode == "api_key"  # or a gateway would not listen to other machines
    assert {"GATEWAY_HOST", "GATEWAY_PORT", "PYOCO_AUTH_PEPPER"} == set(given) - set(ours)


def test_the_services_of_compose() -> None:
    services = COMPOSE["services"]
    ours = {name: service for name, service in services.items() if service["image"] == "pyoco-server"}
    assert len(ours) == 3
    for service in services.values():
        assert set(service.get("depends_on", [])) <= set(services)
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file()
    for service in ours.values():
        options = check_command(service["command"])
        grace = float(service["stop_grace_period"].rstrip("s"))
        assert grace >= options.get("drain_timeout_sec", 0) + HANDING_BACK_SEC
        assert (service["env_file"], service["init"]) == (["pyoco.env"], True)
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    names = re.findall(r"nats-route://([\w-]+):", (DEPLOY / "nats/cluster.conf").read_text())
    assert [services[name]["environment"]["NATS_NAME"] for name in names] == names
    targets = re.findall(r"server (\S+) (\S+):8000", (DEPLOY / "haproxy.cfg").read_text())
    assert {host for _, host in targets} == {name for name in ours if name.startswith("gateway")}


def test_the_image() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--)(.+) \S+$", text, flags=re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    (command,) = re.findall(r"^CMD (.+)$", text, flags=re.MULTILINE)
    check_command(json.loads(command))
    assert set(re.findall(r"(PYOCO_\w+)=", text)) <= KNOWN


def test_the_how_to_names_every_file() -> None:
    others = {DEPLOY / "nats/nats-server.conf"}  # of docs/how-to/secure-nats.md
    missing = [path for path in DEPLOY.rglob("*") if path.is_file() and path not in others and path.name not in HOW_TO]
    assert missing == []


def test_an_option_that_does_not_exist_is_found() -> None:
    with pytest.raises(click.NoSuchOption):
        check_command(["pyoco-worker", "--drain", "5"])
