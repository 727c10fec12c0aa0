"""Our client at a server of the existing system: what that one cannot do is said, nothing is left aside in silence."""

import asyncio
import functools
import inspect
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

from pyoco_server.cli.client import main
from pyoco_server.cli.server import main as server_main
from pyoco_server.client.async_http import AsyncPyocoHttpClient
from pyoco_server.client.errors import ServerTooOld
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.client.needs import OwnKey
from pyoco_server.embedded.nats_server import NatsServer
from tests.wheels import make_wheel

from .existing import Existing

pytestmark = pytest.mark.moving

FLOW = """
version: 1
flow: {graph: a, defaults: {x: 1}}
tasks: {a: {callable: 'pyoco_server._workflow_test_tasks:add_one'}}
"""
YAML = {"workflow_yaml": FLOW, "flow_name": "main", "tag": "none"}
METHODS = """
submit_run submit_run_yaml get_run get_run_with_records get_tasks list_runs list_runs_vnext watch_run cancel_run
get_workers patch_worker_hidden list_wheels list_wheel_history upload_wheel delete_wheel get_metrics close
"""
T = TypeVar("T")
TOO_OLD = "this server is older (0.5.1): it cannot "


@pytest.fixture(scope="module")
def older(existing: Existing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the existing system, with its own store."""
    folder = tmp_path_factory.mktemp("older")
    nats = NatsServer(folder / "nats", client_port=-1, http_port=-1)
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(nats),
        existing.server(nats.url, folder) as url,
    ):
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx2.get(f"{url}/health").raise_for_status()
                break
            except httpx2.HTTPError:
                assert time.monotonic() < deadline, "it does not start"
                time.sleep(0.05)
        yield url


class Counted:
    """Counts what goes to a server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        for client in (httpx2.Client, httpx2.AsyncClient):
            monkeypatch.setattr(client, "send", self._counting(client.send))

    def _counting(self, send: Any) -> Any:
        def counting(client: Any, request: httpx2.Request, **options: Any) -> Any:
            self.paths.append(f"{request.method} {request.url.path}")
            return send(client, request, **options)

        return counting


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def call(kind: str, url: str, method: str, *args: Any, **options: Any) -> Any:
    """Call a method of either client."""
    streams = inspect.isasyncgenfunction(getattr(AsyncPyocoHttpClient, method))
    if kind == "sync":
        with PyocoHttpClient(url) as client:
            result = getattr(client, method)(*args, **options)
            return list(result) if streams else result

    async def run() -> Any:
        async with AsyncPyocoHttpClient(url) as client:
            result = getattr(client, method)(*args, **options)
            return [event async for event in result] if streams else await result

    return asyncio.run(run())


def runs(url: str) -> int:
    return len(patient(lambda: httpx2.get(f"{url}/runs", params={"limit": 200}).raise_for_status()).json())


def patient(ask: Callable[[], T]) -> T:
    """Ask again where the existing system answers 503 by mistake, as it does now and then when it lists keys."""
    for _ in range(20):
        try:
            return ask()
        except httpx2.HTTPStatusError as error:
            if error.response.status_code != 503:
                raise
    return ask()


NEWER: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("submit_run", ("main",), {"idempotency_key": "k"}, "tell a repeated submission from a new one"),
    ("submit_run", ("main",), {"timeout_sec": 5}, "limit a run's time"),
    ("submit_run", ("main",), {"max_attempts": 2}, "limit how often a run is started"),
    ("submit_run_yaml", (), {**YAML, "params": {"x": 2}}, "take params for a flow.yaml"),
    ("submit_run_yaml", (), {**YAML, "idempotency_key": "k"}, "tell a repeated submission from a new one"),
    ("submit_run_yaml", (), {**YAML, "timeout_sec": 5, "params": {"x": 2}},
     "take params for a flow.yaml or limit a run's time"),
    ("submit_run_yaml", (), {**YAML, "workflow_yaml": b"\xff", "max_attempts": 2}, "limit how often"),
    ("why_run", ("RUN",), {}, "say why a run waits"),
    ("get_logs", ("RUN",), {"task": "a"}, "show what a run's tasks print"),
    ("follow_logs", ("RUN",), {}, "show what a run's tasks print"),
    ("watch_run", ("RUN",), {"last_event_id": "7"}, "go on after an event"),
    ("cancel_run", ("RUN",), {"reason": "wrong"}, "keep the reason of a cancel"),
    ("rerun_run", ("RUN",), {}, "run a run again"),
    ("list_runs", (), {"status": "PENDING,RUNNING"}, "list runs of several statuses"),
    ("list_runs_vnext", (), {"status": "PENDING,RUNNING"}, "list runs of several statuses"),
    ("get_workers", (), {"worker_id": "w"}, "list one worker alone"),
    ("drain_worker", ("w",), {"reason": "new"}, "ask a worker to drain"),
    ("get_doctor", (), {}, "say what is wrong with it"),
    ("list_dead_letters", (), {}, "list or replay dead letters"),
    ("get_dead_letter", (1,), {}, "list or replay dead letters"),
    ("replay_dead_letter", (1,), {}, "list or replay dead letters"),
    ("delete_dead_letter", (1,), {}, "list or replay dead letters"),
    ("list_audit", (), {}, "say who did what"),
    ("upload_wheel", (), {"filename": "a-1-py3-none-any.whl", "data": b"x", "tenant": "t"}, "keep a tenant's wheels"),
    ("delete_wheel", ("a-1-py3-none-any.whl",), {"tenant": "t"}, "keep a tenant's wheels"),
    ("pin_wheel", ("a==1",), {}, "go back to a stored wheel"),
    ("unpin_wheel", ("a==1",), {}, "go back to a stored wheel"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_it_cannot_do_is_said_before_anything_is_made(kind: str, older: str) -> None:
    run_id = call(kind, older, "submit_run", "main", tag="none")["run_id"]
    before = runs(older)
    for method, args, options, cannot in NEWER:
        if method == "get_workers":  # the existing system fails while it knows no worker
            continue
        given = [run_id if arg == "RUN" else arg for arg in args]
        with pytest.raises(ServerTooOld) as caught:
            patient(functools.partial(call, kind, older, method, *given, **options))
        assert caught.value.message.startswith(TOO_OLD + cannot), (method, caught.value.message)
        assert (caught.value.exit_code, caught.value.code) == (1, "server_too_old") and caught.value.hint
    assert runs(older) == before
    assert patient(lambda: httpx2.get(f"{older}/wheels").raise_for_status()).json() == []
    assert httpx2.get(f"{older}/runs/{run_id}").json()["status"] == "PENDING"


def test_every_method_is_tried_here_or_known_to_the_existing_system(older: str) -> None:
    """A method or an option that comes later must not be forgotten: it is newer too."""
    ours = {name for name, part in inspect.getmembers(PyocoHttpClient, inspect.isfunction) if not name.startswith("_")}
    theirs = set(METHODS.split())
    assert ours == theirs | {method for method, *_ in NEWER}
    options = {
        (method, name) for method in ours for name in inspect.signature(getattr(PyocoHttpClient, method)).parameters
    }
    known = httpx2.get(f"{older}/openapi.json").json()
    fields = json.dumps(known)
    newer = {(method, name) for method, _, given, _ in NEWER for name in given}
    # A reader's own options, and those of methods that are newer as a whole.
    whole = {method for method, *_ in NEWER} - theirs
    own = {"self", "wait", "full", "include_records", "run_id", "filename", "data", "path", "hidden", "wheel_name"}
    missing = {
        (method, name) for method, name in options - newer
        if method not in whole and name not in own and f'"{name}"' not in fields and name != "workflow_yaml"
    }  # fmt: skip
    assert missing == set()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("submit-yaml --workflow-file FLOW --flow-name main --param x=2", "take params for a flow.yaml"),
        ("submit --flow-name main --idempotency-key k", "tell a repeated submission from a new one"),
        ("rerun RUN", "run a run again"),
        ("cancel --run-id RUN --reason wrong", "keep the reason of a cancel"),
        ("why RUN", "say why a run waits"),
        ("logs RUN -f", "show what a run's tasks print"),
        ("dlq list", "list or replay dead letters"),
        ("audit", "say who did what"),
        ("workers drain w", "ask a worker to drain"),
        ("wheel-upload --wheel-file WHEEL --tenant t --preflight off", "keep a tenant's wheels apart"),
        ("wheel-pin a==1", "go back to a stored wheel"),
        ("list --status PENDING,RUNNING", "list runs of several statuses at once"),
    ],
)
def test_the_commands_say_it(
    line: str, said: str, older: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = httpx2.post(f"{older}/runs", json={"flow_name": "main", "tag": "none"}).json()["run_id"]
    (tmp_path / "flow.yaml").write_text(FLOW)
    wheel = make_wheel(tmp_path, "a", "1")
    words = {"FLOW": str(tmp_path / "flow.yaml"), "RUN": run_id, "WHEEL": str(wheel)}
    before = runs(older)
    command = ["--server", older, *(words.get(word, word) for word in line.split())]
    code = next(code for _ in range(20) if (code := main(command)) != 7)  # 503 by mistake
    told = capsys.readouterr().err
    assert code == 1, told
    assert TOO_OLD + said in told and "Upgrade the server" in told
    assert runs(older) == before


def test_doctor_says_it(older: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--server", older, "doctor", "--output", "json"]) == 1
    assert "server_old" in capsys.readouterr().out


def test_check_says_it(older: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server_main(["check", "--url", older, "--output", "json"]) == 1
    said = capsys.readouterr().out
    assert "server_old" in said and "server_odd" not in said


def test_what_it_can_do_goes_on_and_costs_no_question(
    older: str, counted: Counted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flow.yaml").write_text(FLOW)
    lines = ("submit --flow-name main --tag none --param x=1", f"submit-yaml --workflow-file {tmp_path}/flow.yaml "
             "--flow-name main --tag none", "get RUN", "tasks RUN")  # fmt: skip
    run_id = ""
    for line in lines:
        assert main(["--server", older, *line.replace("RUN", run_id).split()]) == 0, capsys.readouterr().err
        answer = json.loads(capsys.readouterr().out)
        assert answer["status"] == "PENDING"
        run_id = answer["run_id"]
    assert len(counted.paths) == len(lines), counted.paths


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_submission_that_it_could_not_tell_from_a_new_one_is_not_repeated(
    kind: str, older: str, counted: Counted
) -> None:
    """The first answer gets lost; a repeat would be a second run."""
    before = runs(older)
    send = httpx2.Client.send if kind == "sync" else httpx2.AsyncClient.send
    lost = iter([True])

    def lose(client: Any, request: httpx2.Request, **options: Any) -> Any:
        answer = send(client, request, **options)
        if request.method == "POST" and next(lost, False):
            if kind == "sync":
                raise httpx2.ReadError("lost", request=request)

            async def broken() -> None:
                await answer
                raise httpx2.ReadError("lost", request=request)

            return broken()
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx2.Client if kind == "sync" else httpx2.AsyncClient, "send", lose)
        with pytest.raises(Exception, match="lost"):
            call(kind, older, "submit_run", "main", tag="none", idempotency_key=OwnKey("k"))
    assert runs(older) == before + 1
