"""Texts are checked in processes of their own: bounded, given up with their clients, and whatever becomes of one."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import psutil
import pytest

from pyoco_server.errors import CheckUnavailable, InvalidFlow, InvalidInput, PyocoError, TooLarge, TooManyChecks
from pyoco_server.gateway.submitting.checking import checker as checker_module
from pyoco_server.gateway.submitting.checking import process as process_module
from pyoco_server.gateway.submitting.checking.checker import FlowChecker
from pyoco_server.gateway.submitting.checking.pool import CheckPool
from pyoco_server.model.flow.workflow import parse_workflow
from pyoco_server.model.text.jsontext import read_json
from tests.integration.test_gateway import Running, running, until
from tests.unit.hostile_flows import KINDS, filled

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LIMIT = 262_144
PATIENCE = 60.0
"""Seconds for a check where it is not what is looked at: machines are busy."""


class Client:
    """Somebody who waits for as long as the test does."""

    def __init__(self, name: str = "me") -> None:
        self.name = name

    async def unless_gone(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await work


ME: Any = Client()


def flow(size: int, tag: str = "") -> bytes:
    """Return a good flow of about a size."""
    tasks = max(1, size // 34)
    graph = " >> ".join(f"t{n}" for n in range(tasks))
    lines = "".join(f"  t{n}: {{callable: 'm:f'}}\n" for n in range(tasks))
    return f"# {tag}\nflow:\n  graph: {graph}\ntasks:\n{lines}".encode()


@contextlib.asynccontextmanager
async def checking(**options: Any) -> AsyncIterator[FlowChecker]:
    made = FlowChecker(LIMIT, LIMIT, CheckPool(**{"answer_sec": PATIENCE, **options}))
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def held(checker: FlowChecker) -> AsyncIterator[list[int]]:
    """Let the processes start, and stop them: what is asked meanwhile waits."""
    pids: list[int] = []
    for number in range(50):  # one that is quick with the first text takes the second too
        texts = (flow(70_000, f"start {number}"), flow(4_000, f"start {number}"))
        await asyncio.gather(*(checker.check(text, ME) for text in texts))
        pids = checker.pool.pids
        if len(pids) == len(checker.pool._busy):
            break
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def told(check: Any) -> Any:
    """Return what a check finds, or all that its error says."""
    try:
        found = await check
    except PyocoError as error:
        return type(error), str(error), vars(error)
    return found.sha256, found.size_bytes, found.node_names, found.defaults


async def test_what_a_process_finds_is_what_would_be_found_here() -> None:
    async with checking() as checker:
        for kind, make in KINDS.items():
            raw = make(3_000).encode()
            there = await told(checker.check(raw, ME))
            assert there == await told(asyncio.to_thread(parse_workflow, raw, max_bytes=LIMIT)), kind
        assert len(checker.pool.pids) <= 2


async def test_params_are_checked_where_the_flow_asks_for_them() -> None:
    text = filled("flow:\n  graph: a\n  defaults: {y: 1}\ntasks:\n  a:\n    callable: m:f\n    inputs:\n",
                  lambda n: f"      i{n}: $ctx.params.x\n", "      j: $ctx.params.y\n", 5_000).encode()  # fmt: skip
    async with checking() as checker:
        found = await checker.check(text, ME)
        assert found.asks_for_params and found.workflow is None and found.defaults == {"y": 1}
        await checker.check_params(found, text, {"x": 1, "y": 2}, ME)
        with pytest.raises(InvalidFlow) as caught:
            await checker.check_params(found, text, {"y": 2}, ME)
        assert (caught.value.line, caught.value.key) == (8, "tasks.a.inputs.i0")
        plain = await checker.check(flow(5_000), ME)
        assert not plain.asks_for_params


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}', "[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": }', '{"params": {"a": [1, NaN]}}',
        '{"params": {"a": [1, {"b": 1e999}]}}', '{"a": "\\ud800"}', '{"a": NaN, "b": [1.5, "é", null, true]}', "[1] x",
    ],
)  # fmt: skip
async def test_long_json_is_read_as_short_json_is(text: str) -> None:
    raw = text.encode()
    long = raw + b" " * 40_000
    async with checking() as checker:
        try:
            expected: Any = read_json(raw)
        except ValueError as error:
            with pytest.raises(json.JSONDecodeError) as decoding:
                await checker.read_json(long, ME)
            assert (decoding.value.msg, decoding.value.pos) == (error.msg, error.pos)  # type: ignore[attr-defined]
        except InvalidInput as error:
            with pytest.raises(InvalidInput) as caught:
                await checker.read_json(long, ME)
            assert vars(caught.value) == vars(error)
        else:
            if '"params"' in text:
                with pytest.raises(InvalidInput, match=r"params\.a\[1\]\S* is (NaN|Infinity)"):
                    await checker.read_json(long, ME)
            else:
                found = await checker.read_json(long, ME)
                assert repr(found) == repr(expected).replace("\\ud800", "?")


async def test_json_larger_than_a_record_and_other_bytes_are_refused() -> None:
    async with checking() as checker:
        with pytest.raises(TooLarge):
            await checker.read_json(b"[%b1]" % (b"1," * 200_000), ME)
        with pytest.raises(UnicodeDecodeError):
            await checker.read_json(b'"\xff' + b" " * 40_000, ME)
        with pytest.raises(TooLarge):
            await checker.check(b" " * (LIMIT + 1), ME)


async def test_a_text_that_several_submit_is_checked_once_and_given_up_with_the_last() -> None:
    async with checking() as checker, held(checker):
        waiting = [asyncio.create_task(checker.check(flow(4_000, "same"), ME)) for _ in range(5)]
        await until(lambda: checker._places["me"] == 5)
        assert len(checker._flights._flights) == 1
        for task in waiting[1:]:
            task.cancel()
        await until(lambda: checker._places["me"] == 1)
        assert len(checker._flights._flights) == 1
        waiting[0].cancel()
        await until(lambda: not checker._places and not checker._flights._flights)


async def test_nobody_takes_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker_module, "_PLACES_OF_ONE", 3)
    monkeypatch.setattr(checker_module, "_PLACES", 4)
    other: Any = Client("other")
    async with checking() as checker, held(checker) as pids:
        waiting = [asyncio.create_task(checker.check(flow(4_000, f"mine {n}"), ME)) for n in range(3)]
        await until(lambda: checker._places["me"] == 3)
        with pytest.raises(TooManyChecks, match="3 of your submissions"):
            await checker.check(flow(4_000, "one more"), ME)
        good = asyncio.create_task(checker.check(flow(4_000, "theirs"), other))
        await until(lambda: checker._places["other"] == 1)
        with pytest.raises(TooManyChecks, match="4 submissions wait"):
            await checker.check(flow(4_000, "one too many"), other)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert (await good).node_names
        await asyncio.gather(*waiting)
    assert not checker._places


async def test_callers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Any = Client("other")
    ended: list[str] = []

    async def check(tag: str, client: Any) -> None:
        await checker.check(flow(4_000, tag), client)
        ended.append(tag)

    async with checking(processes=1) as checker, held(checker) as pids:
        tasks = [asyncio.create_task(check(f"mine {n}", ME)) for n in range(6)]
        await until(lambda: checker._places["me"] == 6)
        tasks.append(asyncio.create_task(check("theirs", other)))
        await until(lambda: checker._places["other"] == 1)
        os.kill(pids[0], signal.SIGCONT)
        await asyncio.gather(*tasks)
    assert ended.index("theirs") <= 2


async def test_long_texts_leave_a_process_to_short_ones() -> None:
    async with checking() as checker, held(checker) as pids:
        long = [asyncio.create_task(checker.check(flow(80_000, f"long {n}"), ME)) for n in range(4)]
        await until(lambda: checker._places["me"] == 4)
        os.kill(pids[1], signal.SIGCONT)  # the first one does long texts, and stands still
        assert (await checker.check(flow(4_000, "short"), ME)).node_names
        assert not any(task.done() for task in long)
        for task in long:
            task.cancel()


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (signal.SIGKILL, CheckUnavailable, "killed by signal 9"),
        (signal.SIGPROF, InvalidFlow, "more than 5 s of processor time"),
    ],
)
async def test_a_process_that_dies_fails_one_check(number: signal.Signals, kind: type[Exception], said: str) -> None:
    async with checking(processes=1) as checker, held(checker) as pids:
        lost = asyncio.create_task(checker.check(flow(4_000, "lost"), ME))
        await until(lambda: any(checker.pool._busy))
        os.kill(pids[0], number)
        with contextlib.suppress(ProcessLookupError):  # it may be gone already
            os.kill(pids[0], signal.SIGCONT)
        with pytest.raises(kind, match=said):
            await lost
        assert (await checker.check(flow(4_000, "lost"), ME)).node_names
        assert checker.pool.pids != pids


async def test_a_text_that_takes_too_much_processor_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "CPU_SEC", 0.02)
    async with checking() as checker:
        with pytest.raises(InvalidFlow, match=r"more than 0\.02 s of processor time"):
            await checker.check(flow(120_000), ME)
        assert (await checker.check(flow(2_100), ME)).node_names


async def test_a_text_that_takes_too_long_is_given_up_and_its_process_killed() -> None:
    async with checking(processes=1) as checker:
        await checker.check(flow(4_000, "start"), ME)
        checker.pool._answer_sec = 0.5
        [pid] = checker.pool.pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(CheckUnavailable, match=r"within 0\.5 s"):
            await checker.check(flow(4_000, "slow"), ME)
        await until(lambda: not psutil.pid_exists(pid))


async def test_what_a_gateway_takes_is_not_held_against_its_processes() -> None:
    taken = bytearray(400 << 20)  # Linux starts the most that a process had with what its parent has
    async with checking(processes=1) as checker:
        await checker.check(flow(4_000, "one"), ME)
        pids = checker.pool.pids
        await checker.check(flow(4_000, "two"), ME)
        await checker.check(flow(4_000, "three"), ME)
        assert checker.pool.pids == pids and len(taken) == 400 << 20


async def test_idle_processes_end_and_come_back() -> None:
    async with checking(idle_sec=0.1) as checker:
        await checker.check(flow(4_000, "one"), ME)
        [pid] = checker.pool.pids
        await until(lambda: not checker.pool.pids)
        assert not psutil.pid_exists(pid)
        await checker.check(flow(4_000, "two"), ME)


async def test_a_process_has_none_of_the_gateways_secrets_and_goes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_AUTH_PEPPER", "geheim")
    async with checking() as checker:
        await checker.check(flow(4_000), ME)
        [pid] = checker.pool.pids
        process = psutil.Process(pid)
        assert not [name for name in process.environ() if name not in ("PATH", "LD_LIBRARY_PATH", "LC_CTYPE")]
        assert process.nice() > psutil.Process().nice()
        assert os.getsid(pid) == os.getsid(0)  # where Linux groups sessions, niceness counts within one alone


async def test_good_flows_are_remembered_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker_module, "_REMEMBERED_BYTES", 30_000)
    async with checking() as checker:
        for number in range(12):
            await checker.check(flow(4_000, str(number)), ME)
            assert checker._good_bytes <= 30_000
        assert 1 < len(checker._good) < 12


async def test_the_event_loop_checks_short_texts_only_while_it_has_time() -> None:
    async with checking() as checker:
        found = await checker.check(flow(1_000), ME)
        assert found.workflow is not None and not checker.pool.pids
        checker._loop_time._left = -1.0
        assert (await checker.check(flow(1_000, "another"), ME)).workflow is None
        assert checker.pool.pids


async def post(here: Running, text: bytes) -> Any:
    here.gateway.checker.pool._answer_sec = PATIENCE
    form = {"data": {"flow_name": "f"}, "files": {"workflow": ("f.yaml", text)}}
    return await here.http.post("/runs/yaml", timeout=PATIENCE, **form)


async def test_a_gateway_says_when_too_much_waits(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(settings) as here, held(here.gateway.checker) as pids:
        monkeypatch.setattr(checker_module, "_PLACES_OF_ONE", 1)
        waiting = asyncio.create_task(post(here, flow(4_000, "waits")))
        await until(lambda: here.gateway.checker._places)
        refused = await post(here, flow(4_000, "too much"))
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_checks")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await here.http.get("/health")).status_code == 200
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert (await waiting).status_code == 200


async def test_a_client_that_hangs_up_frees_its_place(settings: Any) -> None:
    async with running(settings) as here, held(here.gateway.checker) as pids:
        host, port = here.listener.url.removeprefix("http://").rsplit(":", 1)
        bodies = (
            ("/runs/yaml", "application/x-www-form-urlencoded", b"flow_name=f&workflow=" + b"a" * 9_000),
            ("/runs", "application/json", b'{"flow_name": "f"' + b" " * 50_000 + b"}"),
        )
        for path, kind, body in bodies:
            _, writer = await asyncio.open_connection(host, int(port))
            head = (
                f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await until(lambda: here.gateway.checker._places)
            writer.close()
            await until(lambda: not here.gateway.checker._places and not here.gateway.checker._flights._flights)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert (await post(here, flow(4_000, "next"))).status_code == 200


@pytest.mark.slow
async def test_a_large_graph_is_drawn_elsewhere_and_bounded(settings: Any) -> None:
    loops = "foreach(over=xs) { " * 12
    cases = " ".join(f"{n}: n{n}: a;" for n in range(280))
    text = (
        f"flow:\n  graph: |\n    {loops}switch(on=x) {{ {cases} }}{' }' * 12}\n  defaults: {{xs: [], x: 1}}\ntasks:\n"
    )
    async with running(settings) as here:
        made = await post(here, f"{text}  a: {{callable: 'm:f'}}\n".encode())
        assert made.status_code == 200, made.text
        graph = (await here.http.get(f"/runs/{made.json()['run_id']}/graph")).json()
        assert graph["source"] == "flow.yaml" and len(graph["nodes"]) == 281
        assert len(graph["edges"]) == 280 + 12 * 281 and graph["cut"] is False and len(graph["groups"]) == 12
        large = await post(here, flow(125_000))
        assert large.status_code == 200, large.text
        graph = (await here.http.get(f"/runs/{large.json()['run_id']}/graph")).json()
        assert len(graph["nodes"]) == 2000 and graph["cut"] is True


@pytest.mark.parametrize(
    "body",
    [b"flow_name=f&" + b"a=b&" * 5_000, b"flow_name=f" + b"&a" * 100, b"&" * 1_000_000, b"workflow=" + b"%" * 9_999],
)
async def test_forms_of_masses_of_fields_are_refused(settings: Any, body: bytes) -> None:
    async with running(settings) as here:
        answer = await here.http.post(
            "/runs/yaml", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
        )
        assert answer.status_code == 422, answer.text


async def test_multipart_forms_of_masses_of_parts_are_refused(settings: Any) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\nA: b\r\nC: d\r\n\r\n1\r\n'
    async with running(settings) as here:
        answer = await here.http.post(
            "/runs/yaml",
            content=part * 10_000 + b"--b--\r\n",
            headers={"content-type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code == 422, answer.text


@pytest.mark.slow
async def test_health_answers_while_many_hostile_texts_are_checked(settings: Any) -> None:
    async with running(settings) as here:
        await post(here, flow(4_000, "start"))

        async def looks(count: int) -> float:
            """Return the time within which nearly all of some requests are answered."""
            times = []
            for _ in range(count):
                began = time.perf_counter()
                assert (await here.http.get("/health")).status_code == 200
                times.append(time.perf_counter() - began)
            return sorted(times)[int(count * 0.98)]

        idle = await looks(200)
        kinds = ("one task again and again", "many tasks of like names", "a long or", "wires")
        texts = [KINDS.get(kinds[n % 4], lambda size: flow(size).decode())(215_000) + f"# {n}\n" for n in range(20)]
        waiting = [asyncio.create_task(post(here, text.encode())) for text in texts]
        await until(lambda: here.gateway.checker._places)
        loaded = await looks(200)
        answers = [answer.status_code for answer in await asyncio.gather(*waiting)]
        assert set(answers) <= {200, 413, 422, 503}
        assert loaded <= 20 * max(idle, 0.002), (idle, loaded)
