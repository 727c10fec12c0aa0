"""Logs between worker and reader: published in order and bounded, read, filtered, followed and resumed."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.routes import logs as logs_route
from pyoco_server.model.run import EndReason, RunStatus, claim, settle
from pyoco_server.model.runlog import LogChunk, LogLine, LogStream
from pyoco_server.settings import Settings
from pyoco_server.store.logs import LogStore
from pyoco_server.worker import outputpipes, runlog
from pyoco_server.worker.child.frames import Frame, Kind, encode
from pyoco_server.worker.child.outputpipes import OutputPipes
from pyoco_server.worker.runlog import NoRunLog, RunLog

from .test_gateway import Running, events, running, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as server:
        yield server


def chunk(number: int, *texts: str, task: str | None = "t", stream: LogStream = LogStream.STDOUT) -> LogChunk:
    return LogChunk(1, number, [LogLine(float(number), task, stream, text) for text in texts])


def texts(lines: list[dict[str, Any]]) -> list[str]:
    return [line["text"] for line in lines]


async def end(here: Running, run_id: str) -> None:
    claimed = await here.gateway.runs.change(run_id, lambda run: claim(run, worker_id="w", instance_id="i", job_seq=1))
    assert claimed is not None
    done = settle(claimed.record, RunStatus.COMPLETED, EndReason.COMPLETED, None)
    await here.gateway.runs.update(done, claimed.revision)


async def test_a_log_is_read_whole_by_task_by_stream_and_from_its_end(here: Running) -> None:
    run_id = await here.submit()
    empty = (await here.http.get(f"/runs/{run_id}/logs")).json()
    assert empty == {"run_id": run_id, "status": "PENDING", "lines": [], "position": "0"}
    store = here.gateway.logs
    for number in range(1, 41):
        await store.publish(run_id, chunk(number, f"{number}a", f"{number}b", task="ab"[number % 2]), f"x.{number}")
        await store.publish("other", chunk(number, "other"), f"x.{number}")
    await store.publish(run_id, chunk(40, "twice"), "x.40")  # its answer had been lost
    await store.publish(run_id, chunk(41, "cut", task=None, stream=LogStream.NOTICE), "x.41")

    async def read(**query: Any) -> list[str]:
        answer = await here.http.get(f"/runs/{run_id}/logs", params=query)
        assert answer.status_code == 200, answer.text
        return texts(answer.json()["lines"])

    everything = [f"{number}{letter}" for number in range(1, 41) for letter in "ab"] + ["cut"]
    assert await read() == everything
    assert await read(tail=0) == []
    assert await read(tail=3) == everything[-3:]
    assert await read(tail=70) == everything[-70:]
    assert await read(tail=1000) == everything
    assert await read(task="a") == [text for text in everything if text == "cut" or int(text[:-1]) % 2 == 0]
    assert await read(task="a", tail=3) == ["40a", "40b", "cut"]
    assert await read(stream="notice") == ["cut"]
    assert await read(stream="stderr", tail=2) == []


async def test_bad_questions_are_refused(here: Running) -> None:
    run_id = await here.submit()
    for query in ("tail=-1", "tail=10001", "tail=x", "stream=stdin", "follow=maybe"):
        assert (await here.http.get(f"/runs/{run_id}/logs?{query}")).status_code == 422
    for unknown in ("nobody", "a.b", "%2e"):
        assert (await here.http.get(f"/runs/{unknown}/logs")).status_code == 404
        assert (await here.http.get(f"/runs/{unknown}/logs?follow=1")).status_code == 404


async def test_following_gives_what_is_there_what_comes_and_the_end(here: Running) -> None:
    run_id = await here.submit()
    store = here.gateway.logs
    await store.publish(run_id, chunk(1, "old", "older"), "x.1")
    async with here.http.stream("GET", f"/runs/{run_id}/logs?follow=true&tail=1") as answer:
        stream = events(answer)
        assert texts((await anext(stream))["data"]["lines"]) == ["older"]
        for number in (2, 3, 4):
            published = time.monotonic()
            await store.publish(run_id, chunk(number, f"new {number}"), f"x.{number}")
            event = await anext(stream)
            assert (event["event"], texts(event["data"]["lines"])) == ("log", [f"new {number}"])
            assert time.monotonic() - published < 2  # it does not wait until a heartbeat is due
        await store.publish(run_id, chunk(5, "last"), "x.5")
        await end(here, run_id)
        rest = [event async for event in stream]
    assert [event["event"] for event in rest] == ["log", "end"]
    assert rest[-1]["data"]["status"] == "COMPLETED"
    headers = {"Last-Event-ID": event["id"]}  # of "new 4"
    async with here.http.stream("GET", f"/runs/{run_id}/logs?follow=true", headers=headers) as answer:
        again = [event async for event in events(answer)]
    assert [texts(event["data"].get("lines", [])) for event in again] == [["last"], []]


async def test_a_quiet_log_beats_and_ends_with_the_server(here: Running) -> None:
    run_id = await here.submit()
    before = time.monotonic()
    async with here.http.stream("GET", f"/runs/{run_id}/logs?follow=true&tail=0") as answer:
        stream = events(answer)
        assert (await anext(stream))["data"]["lines"] == []
        assert here.gateway.open_logs == 1
        assert (await anext(stream))["event"] == "heartbeat"
        assert 1.5 < time.monotonic() - before < 5  # clients give up then
        here.listener.stop()
        assert [event["event"] async for event in stream if event.get("event") != "heartbeat"] == []
    await until(lambda: here.gateway.open_logs == 0)


async def test_too_many_logs_at_once_are_refused(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await here.submit()
    monkeypatch.setattr(logs_route, "_MOST_OPEN", 1)
    async with here.http.stream("GET", f"/runs/{run_id}/logs?follow=true&tail=0") as answer:
        stream = events(answer)
        await anext(stream)
        refused = await here.http.get(f"/runs/{run_id}/logs")
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")


async def test_a_stored_chunk_of_another_program_does_no_harm(here: Running) -> None:
    run_id = await here.submit()
    await here.gateway.connection.js.publish(f"{here.gateway.settings.logs_subject_prefix}.{run_id}", b"\xff")
    await here.gateway.logs.publish(run_id, chunk(1, "good"), "x.1")
    assert texts((await here.http.get(f"/runs/{run_id}/logs")).json()["lines"]) == ["good"]
    assert texts((await here.http.get(f"/runs/{run_id}/logs?tail=5")).json()["lines"]) == ["good"]


class Store(LogStore):
    """Keeps chunks in memory; away while it is told so."""

    def __init__(self) -> None:
        self.chunks: list[LogChunk] = []
        self.away = False

    async def publish(self, run_id: str, chunk: LogChunk, message_id: str) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.chunks.append(chunk)

    @property
    def lines(self) -> list[str]:
        return [line.text for chunk in self.chunks for line in chunk.lines]


def line(text: str, kind: Kind = Kind.STDOUT) -> Frame:
    return Frame(kind, "t", 1.0, text.encode())


async def test_lines_share_chunks_and_keep_their_order() -> None:
    store = Store()
    log = RunLog(store, "r", 2, 10_000_000)
    for number in range(5000):
        log.take_frame(line(f"{number}"))
    assert await log.finish(5)
    assert store.lines == [str(number) for number in range(5000)]
    assert [chunk.number for chunk in store.chunks] == list(range(1, len(store.chunks) + 1))
    assert 1 < len(store.chunks) < 10 and {chunk.attempt for chunk in store.chunks} == {2}


async def test_a_silent_run_costs_nothing() -> None:
    store = Store()
    log = RunLog(store, "r", 1, 1000)
    assert await log.finish(5) and store.chunks == []


async def test_a_flood_around_python_is_cut_and_told() -> None:
    store = Store()
    log = RunLog(store, "r", 1, 1000)
    for _ in range(100):
        log.take_raw(LogStream.STDERR, b"x" * 52, "t", continued=False)
    await log.close(5)
    assert store.lines[:10] == ["x" * 52] * 10
    assert store.lines[10:] == [
        "cut here: this log has reached its limit of 1000 bytes (PYOCO_RUN_LOG_MAX_BYTES)",
        "90 lines with 4680 bytes cut in all",
    ]


async def test_while_nats_is_away_lines_wait_up_to_a_bound_and_the_gap_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "BUFFER_BYTES", 10 * 49)
    monkeypatch.setattr(runlog, "_FULL_BYTES", 5 * 49)
    store = Store()
    store.away = True
    log = RunLog(store, "r", 1, 1_000_000)
    for number in range(10):
        log.take_frame(line(str(number)))
    assert log.is_full
    log.take_frame(line("too much"))
    log.take_frame(line("too much"))
    assert not await log.finish(0.1)
    store.away = False
    assert await log.finish(5)
    gap = "2 lines with 16 bytes cut here: NATS took no more of them for too long"
    assert store.lines == [*map(str, range(10)), gap]


async def test_frames_of_user_code_cannot_fill_the_log_with_notices() -> None:
    store = Store()
    log = RunLog(store, "r", 1, 1000)
    for _ in range(10_000):
        log.take_frame(line("1 1", Kind.LOST))
    log.take_frame(line("many", Kind.CUT))
    await log.close(5)
    assert len(store.lines) == runlog._MOST_NOTICES


async def test_pipes_give_everything_printed_before_in_order_and_to_whom_it_belongs() -> None:
    store = Store()
    pipes = OutputPipes(NoRunLog())
    frames, out = os.dup(pipes.frames_end), os.dup(pipes.stdout_end)
    pipes.start()
    log = RunLog(store, "r", 1, 1_000_000)
    pipes.attach(log)
    os.write(frames, encode(Kind.TASK_STARTED, "a", 1.0, b""))
    os.write(out, b"from C\r\nno end")
    os.write(frames, b"garbage\n" + encode(Kind.STDOUT, "a", 1.0, b"from Python"))
    pipes.attach(NoRunLog())
    await log.close(5)
    found = [(line.task, line.text, line.continued) for chunk in store.chunks for line in chunk.lines]
    assert sorted(found) == [("a", "from C", False), ("a", "from Python", False), ("a", "no end", False)]
    os.close(frames)
    os.close(out)
    pipes.close()


async def test_full_pipes_are_left_alone_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputpipes, "_FULL_SEC", 0.2)
    store = Store()
    store.away = True
    monkeypatch.setattr(runlog, "BUFFER_BYTES", 200_000)
    monkeypatch.setattr(runlog, "_FULL_BYTES", 100_000)
    log = RunLog(store, "r", 1, 100_000_000)
    pipes = OutputPipes(log)
    out = os.dup(pipes.stdout_end)
    pipes.start()
    loop = asyncio.get_running_loop()
    data = (b"x" * 99 + b"\n") * 20_000
    await asyncio.wait_for(loop.run_in_executor(None, lambda: [os.write(out, data)]), 20)  # a subprocess never blocks
    store.away = False
    os.close(out)
    pipes.drain()
    await log.close(5)
    assert any("cut here: NATS took no more" in text for text in store.lines)
    assert len(store.lines) < 3000
    pipes.close()


async def test_a_broken_read_breaks_the_answer(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await here.submit()
    for number in range(1, 10):
        await here.gateway.logs.publish(run_id, chunk(number, "x"), f"x.{number}")
    read = here.gateway.logs.read

    async def once(run_id: str, *, after: int) -> Any:
        if after:
            raise StoreUnavailable("away")
        return await read(run_id, after=after)

    monkeypatch.setattr(here.gateway.logs, "read", once)
    with pytest.raises(httpx2.RemoteProtocolError):
        await here.http.get(f"/runs/{run_id}/logs")
