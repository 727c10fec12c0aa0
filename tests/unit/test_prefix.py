"""Paths behind a proxy: whichever form arrives, the server sees the same one."""

import contextlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette._utils import get_route_path
from starlette.types import Receive, Scope, Send

from pyoco_server.errors import InvalidSetting
from pyoco_server.gateway.access.guard import doors
from pyoco_server.gateway.app import create_app
from pyoco_server.gateway.http.prefix import Prefix, own_parts
from pyoco_server.model.prefixes import LONGEST, check_prefix
from pyoco_server.settings.environment import Settings

OWN = frozenset({"runs", "static"})
PARTS = st.text("abz09._~-", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
PREFIXES = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "".join(f"/{part}" for part in parts))
PATHS = ["/", "/runs", "/runs/1/why", "/static/x.js", "/openapi.json", "/pyoco", "/pyocorun"]


def through(
    path: str, told: list[str] | None = None, *, client: Any = ("127.0.0.1", 9), known: str = "", **settings: Any
) -> tuple[str, str] | int:
    """Give the root path and the path below it that the server sees, or the status of a refusal."""
    seen: list[tuple[str, str]] = []
    statuses: list[int] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append((scope["root_path"], get_route_path(scope)))

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    headers = [(b"x-forwarded-prefix", one.encode()) for one in told or []]
    scope = {"type": "http", "method": "GET", "path": path, "root_path": known, "headers": headers, "client": client}
    with contextlib.suppress(StopIteration):  # nothing here waits for anything, so it needs no event loop
        Prefix(app, Settings(_env_file=None, **settings), OWN)(scope, receive, send).send(None)
    return seen[0] if seen else statuses[0]


@pytest.mark.parametrize("text", ["/pyoco", "/pyoco/", " /pyoco\n"])
def test_a_prefix_has_one_form(text: str) -> None:
    assert check_prefix(text) == "/pyoco"
    assert check_prefix("/") == check_prefix("") == ""


@pytest.mark.parametrize(
    "text",
    [
        "pyoco", "//evil.example", "//", "/a//b", "/a/../b", "/..", "/.", "/a/./b", "/a b", "/a\nb", "/a\r\nx: y",
        '/a"b', "/a'b", "/<b>", "/a%2fb", "/a?b", "/a#b", "/a\\b", "/ä", "/a,/b", "http://evil.example/a", "/a\x00",
        "/" + "a" * LONGEST,
    ],
)  # fmt: skip
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as /pyoco"):
        check_prefix(text)


@given(PREFIXES)
def test_a_prefix_needs_no_escapes(prefix: str) -> None:
    assert check_prefix(prefix) == prefix == check_prefix(f"{prefix}/")


@given(PREFIXES, st.sampled_from(PATHS))
def test_with_and_without_the_prefix_it_is_the_same_path(prefix: str, path: str) -> None:
    assume(not f"{path}/".startswith(f"{prefix}/"))  # why a prefix may not begin as the server's own paths do
    for arrived in (path, prefix + path, f"{path}/", f"{prefix}{path}//"):
        assert through(arrived, root_path=prefix) == through(arrived, known=prefix) == (prefix, path)
    assert through(prefix, root_path=prefix) == (prefix, "/")


@given(st.sampled_from(PATHS))
def test_without_a_prefix_only_slashes_at_the_end_do_not_count(path: str) -> None:
    assert through(path) == through(f"{path}/") == ("", path)


TRUSTING = {"trusted_proxies": "127.0.0.1, 10.0.0.0/8 fd00::/8"}


@pytest.mark.parametrize("client", [("127.0.0.1", 9), ("10.9.9.9", 9), ("::ffff:10.1.1.1", 9), ("fd00::5", 9)])
def test_a_trusted_proxy_tells_its_prefix(client: Any) -> None:
    for arrived in ("/runs", "/a/b/runs"):
        assert through(arrived, ["/a/b/"], client=client, **TRUSTING) == ("/a/b", "/runs")
    assert through("/runs", ["/a"], client=client, root_path="/b", **TRUSTING) == ("/a", "/runs")
    assert through("/runs", [""], client=client, root_path="/b", **TRUSTING) == ("/b", "/runs")
    assert through("/runs", ["/a"], client=client, known="/b", **TRUSTING) == ("/b", "/runs")


@pytest.mark.parametrize("client", [("127.0.0.2", 9), ("11.0.0.1", 9), ("::1", 9), ("", 0), None, ("a name", 1)])
def test_nobody_else_does(client: Any) -> None:
    for told in (["/evil"], ["//evil.example"]):
        assert through("/runs", told, client=client, **TRUSTING) == ("", "/runs")
        assert through("/runs", told, client=("127.0.0.1", 9)) == ("", "/runs")


@pytest.mark.parametrize(
    "told", [["//evil.example"], ["/a", "/b"], ["/a, /b"], ["/a/../b"], ['/"><script>'], ["/runs/x"]]
)
def test_a_trusted_proxy_that_passes_on_what_it_got_is_refused(told: list[str]) -> None:
    assert through("/runs", told, **TRUSTING) == 422


def test_a_prefix_is_none_of_the_servers_own_paths() -> None:
    app = create_app(Settings(_env_file=None))
    own = own_parts(app, Settings(_env_file=None))
    assert {"runs", "static", "workers", "openapi.json"} <= own and "" not in own
    assert all(door.route.path == "/" or (door.route.path or "").split("/")[1] in own for door in doors(app))
    for prefix in ("/runs", "/static/pyoco", "/health"):
        with pytest.raises(InvalidSetting, match=prefix):
            create_app(Settings(_env_file=None, root_path=prefix))
    create_app(Settings(_env_file=None, root_path="/runs2/static"))


@pytest.mark.parametrize("text", ["*", "proxy.example.com", "10.0.0.1/8", "10.0.0.0/33", "1.2.3.4:80"])
def test_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PYOCO_TRUSTED_PROXIES", text)
    with pytest.raises(InvalidSetting, match=r"PYOCO_TRUSTED_PROXIES=.*such as 127\.0\.0\.1"):
        Settings.from_env()
