"""What browsers may be made to do by other sites' pages: nothing."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from pyoco_server.errors import ForeignHost, ForeignOrigin
from pyoco_server.gateway.access.browsers import Browsers
from pyoco_server.model.addresses import is_loopback
from pyoco_server.settings.environment import Settings

Headers = list[tuple[bytes, bytes]]


def ask(
    method: str = "POST", *, at: Any = ("127.0.0.1", 8000), keys: bool = False, settings: dict[str, Any] | None = None,
    **headers: str | list[str],
) -> None:  # fmt: skip
    mode = "api_key" if keys else "none"
    browsers = Browsers(Settings(_env_file=None, http_auth_mode=mode, **(settings or {})))
    sent = [
        (name.replace("_", "-").encode(), one.encode())
        for name, value in headers.items()
        for one in ([value] if isinstance(value, str) else value)
    ]
    browsers.check({"type": "http", "method": method, "server": at, "headers": sent})


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8000", "LOCALHOST", "localhost.:8000", "pyoco.localhost:8000", "127.0.0.1:8000",
        "[::1]:8000", "10.1.2.3", "",
    ],
)  # fmt: skip
def test_without_keys_over_loopback_these_hosts_are_ours(host: str) -> None:
    if host:
        ask("GET", host=host)
    ask("GET")  # no browser leaves it out


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "a:b", ":80"],
)  # fmt: skip
def test_a_rebound_name_is_refused(host: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(ForeignHost):
            ask(method, host=host, origin=f"http://{host}")
    with pytest.raises(ForeignHost):
        ask("GET", host=["localhost", host])
    with pytest.raises(ForeignHost):
        ask("GET", host=host, at=("::1", 8000, 0, 0))


def test_a_name_matters_nowhere_else() -> None:
    ask("GET", host="pyoco.example.com", keys=True)
    ask("GET", host="pyoco.example.com", at=("10.0.0.5", 8000))
    ask("GET", host="pyoco.example.com", at=("/run/pyoco.sock", None))
    ask("GET", host="pyoco.example.com", at=None)


def test_hosts_can_be_named() -> None:
    named = {"http_allowed_hosts": "Pyoco.example.com, other"}
    ask("GET", host="pyoco.example.com:443", settings=named)
    ask("GET", host="localhost", settings=named)
    for keys, at in ((False, ("10.0.0.5", 80)), (True, ("127.0.0.1", 80))):
        with pytest.raises(ForeignHost):
            ask("GET", host="evil.example", settings=named, keys=keys, at=at)
    ask("GET", host="evil.example", settings={"http_allowed_hosts": "*"})


OWN: list[dict[str, Any]] = [
    {},
    {"origin": "http://localhost:8000", "host": "localhost:8000"},
    {"origin": "http://10.0.0.5", "host": "10.0.0.5"},
    {"origin": "https://10.0.0.5", "host": "10.0.0.5:443"},
    {"origin": "https://10.0.0.5:8443", "host": "10.0.0.5:8443"},
    {"origin": "http://[::1]:8000", "host": "[::1]:8000"},
    {"origin": "https://pyoco.example.com", "host": "127.0.0.1", "sec_fetch_site": "same-origin"},
    {"sec_fetch_site": "none"},
]
FOREIGN: list[dict[str, Any]] = [
    {"origin": "http://evil.example", "host": "localhost:8000"},
    {"origin": "null", "host": "localhost:8000"},
    {"origin": "", "host": "localhost:8000"},
    {"origin": "http://evil.example"},
    {"origin": "http://localhost:3000", "host": "localhost:8000"},
    {"origin": "http://localhost", "host": "localhost:8000"},
    {"origin": "http://127.0.0.1:8000", "host": "localhost:8000"},
    {"origin": "http://localhost:8000@evil.example", "host": "localhost:8000"},
    {"origin": "file://", "host": "localhost"},
    {"origin": "http://localhost:x", "host": "localhost"},
    {"origin": ["http://localhost:8000", "http://evil.example"], "host": "localhost:8000"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site", "origin": "http://localhost:8000", "host": "localhost:8000"},
    {"sec_fetch_site": ["same-origin", "cross-site"]},
    {"sec_fetch_site": "cross-site", "origin": "http://localhost:8000", "host": "localhost:8000"},
]


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT", "ODD"])
def test_changes_come_from_our_own_page_or_from_no_browser(method: str) -> None:
    for headers in OWN:
        for keys in (True, False):
            ask(method, keys=keys, **headers)
    for headers in FOREIGN:
        for keys in (True, False):
            with pytest.raises(ForeignOrigin):
                ask(method, keys=keys, **headers)


def test_reading_changes_nothing() -> None:
    for headers in FOREIGN:
        ask("GET", **headers)


def test_origins_can_be_named() -> None:
    named = {"http_allowed_origins": "https://Pyoco.example.com/ http://other:3000"}
    ask(origin="https://pyoco.example.com", host="127.0.0.1", sec_fetch_site="cross-site", settings=named)
    ask(origin="http://other:3000", host="127.0.0.1", settings=named)
    for origin in ("http://pyoco.example.com", "https://pyoco.example.com.evil.example", "http://other"):
        with pytest.raises(ForeignOrigin):
            ask(origin=origin, host="127.0.0.1", settings=named)


def test_the_log_tells_of_refusals_once_a_minute_and_address() -> None:
    browsers = Browsers(Settings(_env_file=None))

    def refused(client: str, **headers: str) -> None:
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "server": ("127.0.0.1", 80), "headers": sent, "client": (client, 9)}
        with pytest.raises((ForeignHost, ForeignOrigin)):
            browsers.check(scope)

    with capture_logs() as lines:
        for _ in range(5):
            refused("192.0.2.1", origin="http://evil.example", host="localhost")
        refused("192.0.2.2", host="evil.example")
        browsers.check({"type": "http", "method": "POST", "server": ("127.0.0.1", 80), "headers": []})
    assert [(line["address"], line["code"], line["method"], line["attempts"]) for line in lines] == [
        ("192.0.2.1", "foreign_origin", "POST", 1), ("192.0.2.2", "foreign_host", "POST", 1),
    ]  # fmt: skip
    assert all("evil.example" in line["reason"] for line in lines)


def test_a_web_server_of_ones_own_is_warned_of_once() -> None:
    browsers = Browsers(Settings(_env_file=None))
    with capture_logs() as lines:
        for _ in range(3):
            browsers.check({"type": "http", "method": "GET", "server": ("10.0.0.5", 80), "headers": []})
    assert [line["address"] for line in lines] == ["10.0.0.5"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "fe80::1%lo", "::ffff:10.0.0.1", "localhost", ""]
)
def test_not_loopback(address: str) -> None:
    assert not is_loopback(address)
