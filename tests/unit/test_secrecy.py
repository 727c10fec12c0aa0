"""Secrets are read once: what is left of them where the kernel shows it. In processes of their own."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

CODE = """\
import json, os, sys
from pathlib import Path
from pyoco_server.settings import secrecy
from pyoco_server.settings.environment import Settings
if "in-hiding" in sys.argv:
    secrecy.hide()
settings = Settings.from_env(nats_url="{url}" or None)
secrecy.keep_secrets(settings)
again = Settings.from_env()
import ctypes
print(json.dumps({{
    "environ": {{name: value for name, value in os.environ.items() if name.startswith("PYOCO_")}},
    "shown": Path("/proc/self/environ").read_bytes().decode() + Path("/proc/self/cmdline").read_bytes().decode(),
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    "pepper": again.auth_pepper and again.auth_pepper.get_secret_value(),
    "password": again.nats_password and again.nats_password.get_secret_value(),
    "url": again.nats_url,
    "for_worker": settings.nats_variables(),
}}))
"""
ALL = {
    "PYOCO_AUTH_PEPPER": "s3cret-1", "PYOCO_AUTH_NATS_URL": "nats://a:s3cret-2@h:1", "PYOCO_API_KEY": "s3cret-3",
    "PYOCO_NATS_USER": "u", "PYOCO_NATS_PASSWORD": "s3cret-4", "PYOCO_NATS_URL": "nats://h:1", "PYOCO_DEFAULT_TAG": "t",
}  # fmt: skip


def told(*arguments: str, url: str = "", **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(url=url), *arguments],
        env={**{name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}, **environment},
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def test_nothing_is_left_where_others_look() -> None:
    found = told("in-hiding", **ALL)
    assert found["environ"] == {"PYOCO_NATS_URL": "nats://h:1", "PYOCO_DEFAULT_TAG": "t"}
    assert "s3cret" not in found["shown"]
    assert "PYOCO_DEFAULT_TAG=t" in found["shown"]  # what is no secret stays
    assert found["dumpable"] == 0
    # The settings are the same when they are read once more, and a worker gets what it needs.
    assert (found["pepper"], found["password"], found["url"]) == ("s3cret-1", "s3cret-4", "nats://h:1")
    assert found["for_worker"] == {"PYOCO_NATS_USER": "u", "PYOCO_NATS_PASSWORD": "s3cret-4"}


def test_a_password_in_an_address_is_masked_in_environment_and_arguments() -> None:
    found = told("in-hiding", "--nats-url", "nats://me:s3cret-5@h:1,nats://me:s3cret-5@k:1",
                 PYOCO_NATS_URL="nats://me:s3cret-6@h:1")  # fmt: skip
    assert "s3cret" not in found["shown"]
    assert "@k:1" in found["shown"]
    assert found["environ"]["PYOCO_NATS_URL"] == "nats://h:1"
    assert found["url"] == "nats://me:s3cret-6@h:1"
    assert found["dumpable"] == 0


@pytest.mark.parametrize(
    ("environment", "dumpable"),
    [
        ({}, 1),
        ({"PYOCO_NATS_URL": "nats://h:1"}, 1),
        ({"PYOCO_HTTP_AUTH_MODE": "api_key"}, 0),
        ({"PYOCO_AUTH_PEPPER": "x"}, 0),
        ({"PYOCO_NATS_TOKEN": "x"}, 0),
    ],
)
def test_who_has_nothing_to_hide_can_be_looked_at(environment: dict[str, str], dumpable: int) -> None:
    assert told("in-hiding", **environment)["dumpable"] == dumpable


def test_somebody_elses_program_keeps_its_environment() -> None:
    found = told(**ALL)
    assert found["environ"] == ALL
    assert found["dumpable"] == 1
