"""The server behind a proxy that gives it a path of its own: every command, and what needs a key."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx2
import pytest

from pyoco_server.cli.client import command, main
from tests.reverse_proxy import reverse_proxy
from tests.wheels import make_wheel

from .conftest import DEADLINE, TUTORIAL, Process, System, running_system

PREFIX = "/tools/pyoco"
SEED = 2**53 + 1
HUGE = 10**30
HANDED_ON = {
    "taken off": {},
    "taken off by one that tells it": {"headers": {"X-Forwarded-Prefix": PREFIX}},
    "kept by one that tells it": {"keeps": True, "headers": {"X-Forwarded-Prefix": PREFIX}},
}
"""To a server that knows no prefix; the settings may name the proxy."""
HANDED_ON_TOLD = {"taken off, in the settings": {}, "kept, in the settings": {"keeps": True}}
FORMS = [*HANDED_ON, *HANDED_ON_TOLD]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that knows no prefix."""
    folder = tmp_path_factory.mktemp("system")
    with running_system(folder, PYOCO_TRUSTED_PROXIES="127.0.0.1") as running:
        (folder / "flow.yaml").write_text(TUTORIAL)
        make_wheel(folder, "acme", "1.0")
        running.worker()
        yield running


@pytest.fixture(scope="module")
def urls(system: System) -> Iterator[dict[str, str]]:
    """The addresses of the same system behind proxies, by how they hand requests on."""
    folder = system.folder / "told"
    folder.mkdir()
    arguments = ["up", "--nats-url", system.nats_url, "--port", "0", "--root-path", f"{PREFIX}/"]
    process = Process(["pyoco-server", *arguments], folder)
    try:
        told = str(process.wait_for("pyoco-server is up")["url"])
        deadline = time.monotonic() + DEADLINE
        while httpx2.get(f"{told}/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with contextlib.ExitStack() as stack:
            yield {
                form: stack.enter_context(reverse_proxy(url, PREFIX, **how))
                for url, forms in ((system.url, HANDED_ON), (told, HANDED_ON_TOLD))
                for form, how in forms.items()
            } | {"directly": system.url, "directly, in the settings": told}
    finally:
        process.stop()


@pytest.mark.parametrize("form", FORMS)
def test_the_page_names_what_the_proxy_serves(urls: dict[str, str], form: str) -> None:
    page = httpx2.get(f"{urls[form]}/")
    named = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(named) > 50
    for address in (named[0], named[-1]):
        answer = httpx2.get(page.url.join(address))
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True), answer.url
    known = form != "taken off"
    assert all(address.startswith(f"{PREFIX}/static/" if known else "static/") for address in named)
    servers = httpx2.get(f"{urls[form]}/openapi.json").json().get("servers")
    assert servers == ([{"url": PREFIX}] if known else None)


@pytest.mark.parametrize("form", [*FORMS, "directly", "directly, in the settings"])
@pytest.mark.parametrize("path", ["/runs/", "/runs//", "/health/", "/static/", "/runs/nobody/"])
def test_no_answer_leads_elsewhere(urls: dict[str, str], form: str, path: str) -> None:
    answer = httpx2.get(f"{urls[form]}{path}")
    assert "location" not in answer.headers
    assert answer.status_code == {"/static/": 404, "/runs/nobody/": 404}.get(path, 200)


def test_what_a_stranger_tells_is_in_no_page(urls: dict[str, str], system: System) -> None:
    for told in ('/"><script>', "//evil.example", "/x/.."):
        for url in (urls["kept, in the settings"], urls["directly, in the settings"]):
            answer = httpx2.get(f"{url}/", headers={"X-Forwarded-Prefix": told})
            assert answer.status_code == 200 and told not in answer.text
        answer = httpx2.get(f"{system.url}/", headers={"X-Forwarded-Prefix": told})  # as if a proxy passed it on
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


@pytest.mark.parametrize("form", FORMS)
def test_other_sites_pages_are_refused_as_ever(urls: dict[str, str], form: str) -> None:
    url = urls[form]
    own = httpx2.URL(url)
    body = {"flow_name": "f", "tag": "nobody"}

    def asked(**headers: str) -> tuple[int, str | None]:
        answer = httpx2.post(f"{url}/runs", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
        return answer.status_code, answer.json().get("code")

    assert asked(origin=f"http://{own.netloc.decode()}")[0] == 200
    assert asked(origin=f"http://{own.netloc.decode()}", sec_fetch_site="same-origin")[0] == 200
    assert asked(origin="http://evil.example") == (403, "foreign_origin")
    assert asked(sec_fetch_site="cross-site") == (403, "foreign_origin")
    assert asked(host="evil.example")[1] == "foreign_host"


def test_a_key_is_asked_for_under_the_prefix_too(tmp_path: Path) -> None:
    environment = {"PYOCO_HTTP_AUTH_MODE": "api_key", "PYOCO_ROOT_PATH": PREFIX}
    process = Process(
        ["pyoco-server", "up", "--port", "0", "--nats-url", "nats://127.0.0.1:9"], tmp_path, **environment
    )
    try:
        url = process.wait_for("pyoco-server is up")["url"]
        for before in ("", PREFIX):
            for path, status in (("/health", 200), ("/", 200), ("/runs", 401), ("/runs/", 401), ("/nowhere", 401)):
                assert httpx2.get(f"{url}{before}{path}").status_code == status, (before, path)
            assert httpx2.post(f"{url}{before}/wheels", content=b"x").status_code == 401
        assert httpx2.get(url + PREFIX).status_code == 200
        assert httpx2.get(f"{url}{PREFIX}{PREFIX}/").status_code == 401  # not taken off twice
    finally:
        process.stop()


def names(group: click.Command, before: str = "") -> Iterator[str]:
    """Give every command by its words."""
    parts = group.commands if isinstance(group, click.Group) else {}
    if not parts or (isinstance(group, click.Group) and group.invoke_without_command):
        yield before.strip()
    for name, part in parts.items():
        yield from names(part, f"{before} {name}")


class Client:
    """Calls pyoco-client and remembers which commands it has called."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url = url
        self._capsys = capsys
        self.called: set[str] = set()

    def __call__(self, words: str, *arguments: object, codes: tuple[int, ...] = (0,)) -> Any:
        self.called.add(words)
        code = main(["--server", self._url, *words.split(), *map(str, arguments)])
        out, err = self._capsys.readouterr()
        assert code in codes, (words, code, err)
        try:
            return [json.loads(line) for line in out.splitlines()]
        except ValueError:
            return out


@pytest.mark.parametrize("form", ["taken off", "kept, in the settings"])
def test_every_command(urls: dict[str, str], system: System, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    client = Client(f"{urls[form]}/", capsys)
    flow = ["--workflow-file", system.folder / "flow.yaml", "--flow-name", "main", "--tag", "cpu"]
    [run] = client("submit-yaml", *flow, "--param", f"x={SEED}", "--param", f"huge={HUGE}", "--wait")
    run_id = run["run_id"]
    assert run["params"] == {"x": SEED, "huge": HUGE}
    [shown] = client("get", run_id, "--records")
    [tasks] = client("tasks", run_id)
    *_, last = client("watch", run_id, "--records", "--until-terminal")
    for records in (shown["task_records"], tasks["task_records"], last["data"]["snapshot"]["task_records"]):
        assert records["add_one"]["output"] == SEED + 1
    [again] = client("rerun", run_id, "--wait")
    assert (again["rerun_of"], again["params"]) == (run_id, run["params"])
    assert client("logs", run_id, "--follow") == client("logs", run_id)
    assert run_id in str(client("list")) and run_id in str(client("list-vnext"))
    [waits] = client("submit", "--flow-name", "f", "--tag", "nobody", "--param", f"x={SEED}")
    assert "nobody" in client("why", waits["run_id"])
    client("cancel", "--run-id", waits["run_id"], "--wait", codes=(8,))

    client("submit-yaml", *flow, "--param", "x=no", "--param", f"huge={HUGE}", "--wait", codes=(3,))
    letter = system.letter()["id"]
    assert client("dlq list")[0][0]["id"] == letter
    assert client("dlq show", letter)[0]["params"]["huge"] == HUGE
    [replayed] = client("dlq replay", letter)
    system.end(replayed["run_id"])
    client("dlq delete", system.letter()["id"])

    wheel = "acme-1.0-py3-none-any.whl"
    client("wheel-upload", "--wheel-file", system.folder / wheel)
    assert client("wheels")[0][0]["name"] == wheel
    downloaded = httpx2.get(f"{urls[form]}/wheels/{wheel}").content
    assert downloaded == (system.folder / wheel).read_bytes()
    client("wheel-pin", "acme==1.0")
    client("wheel-unpin", "acme")
    client("wheel-history")
    client("wheel-delete", "--name", wheel)

    client("workers")
    client("workers drain", "nobody", codes=(5,))
    client("audit")
    assert "pyoco_runs_total" in client("metrics")
    assert urls[form] in client("doctor", codes=(0, 1))
    assert client.called == set(names(command))
