"""``pyoco-client``: what it reads and prints, and its exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from pyoco_server.cli.client import following, main
from pyoco_server.client import http, patience
from pyoco_server.client.http import PyocoHttpClient
from tests.unit.client_fakes import AWAY, RUN, Clock, Server, fake_server, snapshot


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return fake_server(monkeypatch)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (following, patience, http):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_json_is_one_ascii_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answer = lambda _: httpx2.Response(200, json={"flow_name": "é\n"})
    assert main(["get", "r1"]) == 0
    assert capsys.readouterr() == ('{"flow_name": "\\u00e9\\n"}\n', "")


def test_a_list_is_a_table_of_aligned_columns(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    items = [RUN, {"run_id": "longer-id", "status": "FAILED", "flow_name": "\x1b[31mred\n"}]
    server.answer = lambda _: httpx2.Response(200, json=items)
    assert main("list --tag cpu --limit 20 --output table".split()) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run_id     status   flow_name  tag  updated_at",
        "r1         RUNNING  main       cpu  1.5",
        "longer-id  FAILED   ?[31mred?  -    -",
    ]
    assert dict(server.seen[0].url.params) == {"tag": "cpu", "limit": "20"}


@pytest.mark.parametrize("command", ["list", "workers"])
def test_an_empty_list_says_so(server: Server, capsys: pytest.CaptureFixture[str], command: str) -> None:
    server.answer = lambda _: httpx2.Response(200, json=[])
    assert main([command, "--output", "table"]) == 0
    assert capsys.readouterr().out == "(no items)\n"


def test_where_a_key_comes_from(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    file = ["--api-key-file", str(tmp_path / "key")]
    monkeypatch.setenv("PYOCO_API_KEY", "from-variable")
    for options, key in (([], "from-variable"), (["--api-key", "given"], "given"), (file, "from-file")):
        assert main([*options, "get", "r1"]) == 0
        assert server.seen[-1].headers["x-api-key"] == key
    monkeypatch.setenv("PYOCO_HTTP_API_KEY_HEADER", "X-Pyoco")
    assert main(["get", "r1"]) == 0
    assert server.seen[-1].headers["x-pyoco"] == "from-variable"
    capsys.readouterr()
    for name in ("empty", "binary", "missing"):
        assert main(["--api-key-file", str(tmp_path / name), "get", "r1"]) == 1
        assert str(tmp_path / name) in capsys.readouterr().err
    assert main(["--api-key", "given", *file, "get", "r1"]) == 1
    assert "given" not in capsys.readouterr().err.replace("are both given", "")


def test_a_page_ends_with_its_cursor(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answer = lambda _: httpx2.Response(200, json={"items": [RUN], "next_cursor": "c1"})
    assert main(["list-vnext", "--output", "table"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next_cursor: c1"


def test_metrics_are_printed_as_they_are(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answer = lambda _: httpx2.Response(200, text="# HELP a b\na 1\n")
    assert main(["metrics"]) == 0
    assert capsys.readouterr().out == "# HELP a b\na 1\n"


def test_params_come_from_three_places_and_the_later_one_wins(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("a: 1\nb: 1\nc: 1\n")
    words = ["--params", '{"b": 2, "c": 2}', "--param", "c=3", "--param", "d=x=y", "--param", "e=", "--param", "f=NaN"]
    assert main(["submit", "--params-file", str(file), *words]) == 0
    assert json.loads(server.seen[0].content)["params"] == {"a": 1, "b": 2, "c": 3, "d": "x=y", "e": "", "f": "NaN"}


@pytest.mark.parametrize(
    ("typed", "sent"),
    [("007", "007"), ("1_000", "1_000"), ("+1", "+1"), (".5", ".5"), ("0x10", "0x10"), ("7e", "7e"), ("1e5", 100000.0),
     ("1.50", 1.5), ("0.1", 0.1), ("5e-324", 5e-324), ("9007199254740993", 9007199254740993),
     ('"7e013608"', "7e013608"), ("1.7976931348623157e308", 1.7976931348623157e308), ("0e0", 0.0), ("123e45", 123e45),
     ("NaN", "NaN"), ("-Infinity", "-Infinity"), ("True", "True"), ("None", "None"), ("true", True), ("null", None)],
)  # fmt: skip
def test_a_param_is_what_was_typed(
    server: Server, capsys: pytest.CaptureFixture[str], typed: str, sent: object
) -> None:
    assert main(["submit", "--param", f"x={typed}"]) == 0
    assert json.loads(server.seen[0].content)["params"] == {"x": sent}
    # What may not be what was meant is told.
    told = typed in ("123e45", "NaN", "-Infinity", "True", "None")
    assert ("--param x is the" in capsys.readouterr().err) is told


@pytest.mark.parametrize(
    "typed", ["7e013608", "12e4567", "-1e999", "1e-999", "3.14159265358979323846", "1e9999999999999"]
)
def test_a_number_that_would_be_another_one_is_refused(
    server: Server, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    assert main(["submit", "--param", f"sha={typed}"]) == 1 and not server.seen
    told = capsys.readouterr().err
    assert f"--param sha={typed} is a number that JSON cannot keep" in told
    assert f"""--param 'sha="{typed}"'""" in told


def test_a_json_file_is_read_as_json(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "params.json"
    file.write_bytes(b'\xef\xbb\xbf{\n\t"x": 1e5, "smile": "\\ud83d\\ude00"}')  # YAML would read both otherwise
    assert main(["submit", "--params-file", str(file)]) == 0
    assert json.loads(server.seen[0].content)["params"] == {"x": 100000.0, "smile": "\U0001f600"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["submit", "--param", "novalue"], "--param 'novalue'"),
        (["submit", "--param", "=1"], "--param '=1'"),
        (["submit", "--params", "{x}"], "--params is not JSON"),
        (["submit", "--params", "[1]"], "--params is not a JSON object"),
        (["submit", "--params", "[" * 100000], "--params: the JSON nests too deeply"),
        (["submit", "--params", '{"a": {"b": [1, NaN]}}'], "params.a.b.1 cannot be sent as JSON: it is nan"),
        (["submit", "--params", '{"a": 1, "a": 2}'], "--params: the key 'a' is there twice"),
        (["submit", "--params-file", "nan.yaml"], "params.lr cannot be sent as JSON: it is nan"),
        (["submit", "--param", 'x={"a": [NaN]}'], "--param x.a[0] is NaN"),
        (["submit", "--param", "x=[1e999]"], "--param x[0] is Infinity"),
        (["submit", "--param", "x=" + "[" * 100000], "--param x: the JSON nests too deeply"),
        (["submit", "--param", "x=" + "9" * 5000], "--param x: a number in the JSON has too many digits"),
        (["submit", "--params-file", "list.yaml"], "list.yaml holds no mapping"),
        (["submit", "--params-file", "bad.yaml"], "bad.yaml is neither JSON nor YAML"),
        (["submit", "--params-file", "day.yaml"], "day.yaml is neither JSON nor YAML: month must be"),
        (["submit", "--params-file", "missing.yaml"], "missing.yaml"),
        (["submit-yaml", "--workflow-file", "missing.yaml", "--flow-name", "f"], "missing.yaml"),
        (["submit-yaml", "--flow-name", "f"], "--workflow-file"),
        (["cancel"], "--run-id"),
        (["get"], "RUN_ID"),
        (["get", "\udcff"], "udcff"),
        (["list", "--output", "xml"], "--output"),
        (["list", "--limit", "many"], "--limit"),
        (["nonsense"], "nonsense"),
        (["--server", "ftp://h", "get", "r1"], "ftp://h"),
        (["--api-key", "hu\nsh", "get", "r1"], "API key"),
    ],
)
def test_wrong_input_exits_1_and_names_the_piece(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], named: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("- 1\n")
    Path("bad.yaml").write_text("a: [\n")
    Path("nan.yaml").write_text("lr: .nan\n")
    Path("day.yaml").write_text("a: 2024-13-45\n")
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and named in err
    assert not server.seen


@pytest.mark.parametrize(("words", "code"), [([], 1), (["-h"], 0), (["--version"], 0), (["watch", "--help"], 0)])
def test_help_and_version(server: Server, words: list[str], code: int) -> None:
    assert main(words) == code


def test_every_command_has_help_with_an_example(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    commands = "submit submit-yaml get tasks list list-vnext watch cancel why workers metrics".split()
    for name in commands:
        assert main([name, "--help"]) == 0
        assert f"Example: pyoco-client {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "code"), [(401, 4), (403, 4), (404, 5), (409, 6), (422, 1), (429, 4), (500, 1), (503, 7)]
)  # fmt: skip
@pytest.mark.parametrize("words", ["get r1", "watch r1", "watch r1 --until-terminal", "cancel --run-id r1 --wait"])
def test_a_refusal_is_two_lines_and_a_code(
    server: Server, capsys: pytest.CaptureFixture[str], status: int, code: int, words: str
) -> None:
    refusal = httpx2.Response(status, json={"detail": "why", "code": "c", "hint": "what to do"})
    server.answer = lambda _: refusal
    server.watches = [refusal]
    assert main(["--api-key", "hush", *words.split()]) == code
    assert capsys.readouterr() == ("", "error: why\nhint: what to do\n")


@pytest.mark.parametrize(
    "words", ["get r1", "watch r1", "watch r1 --until-terminal", "--retry-sec 0 submit --idempotency-key k"]
)
def test_no_server_is_told_at_once(
    server: Server, capsys: pytest.CaptureFixture[str], clock: Clock, words: str
) -> None:  # fmt: skip
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise AWAY

    server.answer = refuse
    server.watches = [AWAY]
    assert main(["--server", "http://here:1", *words.split()]) == 7
    assert capsys.readouterr().err == (
        "error: cannot reach the server at http://here:1: refused\n"
        "hint: Is it running? Start it with: pyoco-server up\n"
    )  # fmt: skip
    assert not clock.slept


def test_address_and_key_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_SERVER", "https://there:9/base/")
    monkeypatch.setenv("PYOCO_API_KEY", "hush")
    assert main(["--api-key-header", "X-Other", "get", "r1"]) == 0
    assert str(server.seen[0].url) == "https://there:9/base/runs/r1"
    assert server.seen[0].headers["X-Other"] == "hush"


def test_ctrl_c_exits_130(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: httpx2.Request) -> httpx2.Response:
        raise KeyboardInterrupt

    server.answer = interrupt
    assert main(["get", "r1"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_fault(tmp_path: Path) -> None:
    script = tmp_path / "many.py"
    script.write_text(
        "import sys\nfrom pyoco_server.cli.client import main\nfrom pyoco_server.client.http import PyocoHttpClient\n"
        "PyocoHttpClient.list_runs = lambda self, **_: [{'run_id': 'x' * 100}] * 20000\n"
        "sys.exit(main(['list', '--output', 'table']))\n"
    )
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, str(script)], stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        os.read(read, 10)
        os.close(read)
        _, err = process.communicate()
    assert err == b""


def test_the_client_is_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(PyocoHttpClient, "close", lambda _: closed.append(True))
    assert main(["get", "r1"]) == 0
    assert closed


@pytest.mark.parametrize(
    ("words", "answered", "ended", "code", "said"),
    [
        ("--wait", "CANCELLING", "CANCELLED", 8, ""),
        ("--wait", "CANCELLED", "", 8, ""),
        ("--wait", "COMPLETED", "", 0, "run r1: it had already COMPLETED before the cancel\n"),
        ("--wait", "FAILED", "", 3, "run r1: it had already FAILED before the cancel\n"),
        ("--wait", "CANCELLING", "COMPLETED", 0, "run r1: it COMPLETED before it could be stopped\n"),
        ("", "CANCELLING", "", 0, ""),
        ("", "CANCELLED", "", 0, ""),
        ("", "FAILED", "", 0, "run r1: it had already FAILED before the cancel\n"),
    ],
)
def test_a_cancels_exit_code_tells_which_came_first(
    server: Server, capsys: pytest.CaptureFixture[str], words: str, answered: str, ended: str, code: int, said: str
) -> None:
    server.answer = lambda _: httpx2.Response(200, json={**RUN, "status": answered})
    server.watches = [(snapshot(ended),)]
    assert main(["cancel", "--run-id", "r1", *words.split()]) == code
    printed = capsys.readouterr()
    assert json.loads(printed.out)["status"] == (ended or answered)
    assert printed.err == said


@pytest.mark.parametrize(
    ("words", "locale", "asked"),
    [("", "ja_JP.UTF-8", "ja"), ("", "C", "en"), ("", "", "en"), ("--lang ja", "en_US.UTF-8", "ja")],
)
def test_why_is_a_sentence_and_a_hint_in_the_terminals_language(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: str, locale: str, asked: str,
) -> None:  # fmt: skip
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", locale)
    answer = {"code": "c", "message": "It waits \x1b[31m.", "hint": "", "details": {}}
    server.answer = lambda _: httpx2.Response(200, json=answer)
    assert main(["why", "r1", *words.split()]) == 0
    assert capsys.readouterr().out == "It waits ?[31m.\n"
    assert dict(server.seen[0].url.params) == {"lang": asked}
    assert main(["why", "r1", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_submit_repeats_itself_with_one_key(
    server: Server, clock: Clock, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flow = tmp_path / "flow.yaml"
    flow.write_text("version: 1\n")
    failures = [AWAY, httpx2.ReadTimeout("slow"), httpx2.Response(503, json={"detail": "NATS is away"})]
    script: list[Exception | httpx2.Response] = []

    def answer(_: httpx2.Request) -> httpx2.Response:
        failure = script.pop(0)
        if isinstance(failure, Exception):
            raise failure
        return failure

    server.answer = answer
    for words in (["submit"], ["submit-yaml", "--workflow-file", str(flow), "--flow-name", "f"]):
        for given in ([], ["--idempotency-key", "mine"]):
            server.seen.clear()
            script[:] = [*failures, httpx2.Response(200, json=RUN)]
            assert main([*words, *given]) == 0
            bodies = {re.sub(rb"--[0-9a-f]{32}", b"", request.content) for request in server.seen}
            assert len(server.seen) == 4 and len(bodies) == 1
            assert (b"mine" in bodies.pop()) is bool(given)
            out, err = capsys.readouterr()
            assert json.loads(out) == RUN and err.count("\n") == 1 and "trying again for up to 30 s" in err
    assert clock.slept[:3] == [0.2, 0.4, 0.8]


def test_submit_gives_up_and_tells_how_to_go_on(
    server: Server, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda _: httpx2.Response(503, json={"detail": "NATS is away"})
    began = clock.now
    assert main(["--retry-sec", "10", "submit"]) == 7
    assert 10 <= clock.now - began < 20 and len(server.seen) > 3
    key = json.loads(server.seen[0].content)["idempotency_key"]
    assert f"--idempotency-key {key}" in capsys.readouterr().err


def test_submit_does_not_repeat_what_was_refused(server: Server, clock: Clock) -> None:
    server.answer = lambda _: httpx2.Response(409, json={"detail": "another request"})
    assert main(["submit", "--idempotency-key", "k"]) == 6
    assert len(server.seen) == 1 and not clock.slept
