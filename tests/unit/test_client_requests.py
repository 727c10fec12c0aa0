"""What the HTTP clients refuse to send, before there is a request."""

import datetime
import subprocess
import sys
from typing import Any

import pytest

from pyoco_server.client import requests
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.errors import InvalidInput

URL = "http://server:8000"


@pytest.mark.parametrize(
    "url", ["", *"ftp://h h:8000 http:// http://[::1 http://h:99999 http://h/?x=1 http://h/#x".split()]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="not a URL"):
        PyocoHttpClient(url)


@pytest.mark.parametrize("url", ["http://me:hush@h", "me:hush@h:80", "ftp://me:hush@h", "http://me:hush@[h"])
def test_a_password_in_the_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        PyocoHttpClient(url)
    assert "hush" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("key", ["hush\n", "hu\0sh", "hüsh", " hush"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        PyocoHttpClient(URL, api_key=key)
    assert key.strip() not in f"{caught.value} {caught.value.hint}" and "hush" not in caught.value.message


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("params", "piece"),
    [
        ({"a": {"b": [1, float("nan")]}}, "params.a.b.1 "),
        ({"day": datetime.date(2024, 1, 1)}, "params.day "),
        ({(1, 2): 3}, "params "),
        ({"a": endless()}, "params.a.0."),
    ],
)
def test_what_json_cannot_carry_is_named(params: Any, piece: str) -> None:
    for build in (requests.submit, requests.submit_yaml):
        args = ("main", params) if build is requests.submit else ("version: 1", "main", params)
        with pytest.raises(InvalidInput) as caught:
            build(*args)
        assert caught.value.message.startswith(piece)


@pytest.mark.parametrize("run_id", ["", ".", ".."])
def test_an_id_that_would_be_another_path_is_refused(run_id: str) -> None:
    for build in (requests.run, requests.delete_wheel):
        with pytest.raises(InvalidInput):
            build(run_id)


def test_the_client_loads_neither_gateway_nor_nats() -> None:
    code = (
        "import sys, pyoco_server.client.async_http, pyoco_server.cli.client\n"
        "heavy = {'fastapi', 'nats', 'pyoco_server.store', 'pyoco_server.gateway', 'pyoco_server.worker'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
