"""Which proxy is used, for whom, and what is said about one that cannot be."""

import importlib.util
import ipaddress
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.client.proxies import is_this_machine, proxy_for
from pyoco_server.errors import InvalidInput

PROXY = "http://proxy.example:3128"
FAR = "http://gateway.example:8000"

HERE = [
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "localhost",
    "LOCALHOST", "localhost.", "pyoco.localhost", "a.b.localhost", "2130706433",
]  # fmt: skip
ELSEWHERE = [
    "10.0.0.1",
    "128.0.0.1",
    "[2001:db8::1]",
    "localhost.example",
    "mylocalhost",
    "gateway",
    "127.0.0.1.nip.io",
]

EXCEPTED = {
    "gateway.example": ["gateway.example", "GATEWAY.example", "example", ".example", "*.example", "gateway.example.",
                        "other, gateway.example", "other gateway.example", "gateway.example:8000", "*",
                        "http://gateway.example", "all://gateway.example", ".gateway.example"],
    "10.1.2.3": ["10.1.2.3", "10.0.0.0/8", "10.1.2.3/32", "10.1.2.3:8000", "::1,10.1.0.0/16", "10.1.2.9/24"],
    "[fd00::7]": ["fd00::7", "[fd00::7]", "fd00::/8", "[fd00::7]:8000", "FD00:0:0:0:0:0:0:7", "[fd00::]/8"],
}  # fmt: skip
NOT_EXCEPTED = {
    "gateway.example": ["", " , ", "way.example", "gateway", "gateway.example:9", "https://gateway.example", "ample",
                        "b.gateway.example", "10.0.0.0/8", ".", "gateway.example.org"],
    "10.1.2.3": ["10.1.2.4", "11.0.0.0/8", "10.1.2.3:80", "2.3", ".1.2.3.example", "fd00::/8"],
    "[fd00::7]": ["fd00::8", "[fd00::7]:80", "10.0.0.0/8", "fe80::/10"],
}  # fmt: skip


def chosen(url: str, **environ: str) -> str | None:
    proxy = proxy_for(url, environ)
    return None if proxy is None else f"{proxy.variable}={proxy.url}"


@pytest.mark.parametrize("host", HERE)
def test_this_machine_is_never_reached_through_one(host: str) -> None:
    for variable in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        assert chosen(f"http://{host}:8000", **{variable: "socks9://nonsense"}) is None
    assert is_this_machine(host.strip("[]"))


@pytest.mark.parametrize("host", ELSEWHERE)
def test_other_machines_are(host: str) -> None:
    assert chosen(f"http://{host}:8000", HTTP_PROXY=PROXY) == f"HTTP_PROXY={PROXY}"
    assert not is_this_machine(host.strip("[]"))


@given(st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_all_of_the_loopback_network(address: ipaddress.IPv4Address) -> None:
    assert is_this_machine(str(address)) and chosen(f"http://{address}", ALL_PROXY=PROXY) is None


@pytest.mark.parametrize(("host", "entry"), [(host, entry) for host, entries in EXCEPTED.items() for entry in entries])
def test_what_is_excepted(host: str, entry: str) -> None:
    assert chosen(f"http://{host}:8000", ALL_PROXY="socks5://x", NO_PROXY=entry) is None
    assert chosen(f"http://{host}:8000", ALL_PROXY="socks5://x", no_proxy=entry) is None


@pytest.mark.parametrize(
    ("host", "entry"), [(host, entry) for host, entries in NOT_EXCEPTED.items() for entry in entries]
)
def test_what_is_not_excepted(host: str, entry: str) -> None:
    assert chosen(f"http://{host}:8000", ALL_PROXY=PROXY, NO_PROXY=entry) == f"ALL_PROXY={PROXY}"


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        (FAR, {}, None),
        (FAR, {"HTTPS_PROXY": PROXY}, None),
        (FAR, {"HTTP_PROXY": PROXY, "ALL_PROXY": "http://b"}, f"HTTP_PROXY={PROXY}"),
        (FAR, {"http_proxy": "http://a", "HTTP_PROXY": PROXY}, "http_proxy=http://a"),
        (FAR, {"http_proxy": "", "HTTP_PROXY": PROXY}, None),
        (FAR, {"http_proxy": "", "ALL_PROXY": PROXY}, f"ALL_PROXY={PROXY}"),
        (FAR, {"HTTP_PROXY": "  "}, None),
        (FAR, {"HTTP_PROXY": "proxy:3128"}, "HTTP_PROXY=http://proxy:3128"),
        (FAR, {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        (FAR.replace("http", "https", 1), {"HTTP_PROXY": PROXY}, None),
        (FAR.replace("http", "https", 1), {"https_proxy": PROXY}, f"https_proxy={PROXY}"),
        ("https://gateway.example", {"ALL_PROXY": PROXY, "NO_PROXY": "gateway.example:443"}, None),
        ("http://gateway.example", {"ALL_PROXY": PROXY, "NO_PROXY": "gateway.example:80"}, None),
    ],
)
def test_which_variable_counts(url: str, environ: Mapping[str, str], expected: str | None) -> None:
    assert chosen(url, **environ) == expected


@pytest.mark.parametrize(
    "value",
    ["socks4://u:hunter2@h:1", "socks://u:hunter2@h:1", "ftp://u:hunter2@h", "http://u:hunter2@h:99999",
     "http://u:hunter2@h:x", "http://u:hunter2@", "u:hunter2@:3128", "http://u:hunter2@[::1", "http://u:hunter2@a b:1",
     "http://u:hun@ter2@:1", "://u:hunter2@h", "http://u:hunter2@h:0"],
)  # fmt: skip
def test_one_that_cannot_be_used(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        proxy_for(FAR, {"ALL_PROXY": value})
    told = f"{caught.value.message} {caught.value.hint}"
    assert "ALL_PROXY" in told and "NO_PROXY=gateway.example" in told
    assert "hunter2" not in told and "ter2" not in told


def test_socks_without_support_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InvalidInput) as caught:
        proxy_for(FAR, {"all_proxy": "socks5://u:hunter2@h:1080"})
    assert "socks5://h:1080 (from all_proxy)" in caught.value.message and "httpx2[socks]" in caught.value.hint
    assert "hunter2" not in caught.value.message + caught.value.hint
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    proxy = proxy_for(FAR, {"all_proxy": "socks5h://h:1080"})
    assert proxy is not None and proxy.shown == "socks5h://h:1080"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30), st.text(min_size=4, max_size=10))
def test_no_password_is_ever_shown(rest: str, password: str) -> None:
    secret = f"PW{password.encode('utf-8', 'replace').hex()}"
    try:
        proxy = proxy_for(FAR, {"ALL_PROXY": f"http://user:{secret}@{rest}"})
    except InvalidInput as error:
        assert secret not in error.message + error.hint
    else:
        assert proxy is not None and secret in proxy.url and secret not in f"{proxy} {proxy!r} {proxy.way_around}"
