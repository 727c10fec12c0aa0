"""Logs between store and reader: read, filtered, followed and resumed."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.routes import logs as logs_route
from pyoco_server.model.run import EndReason, RunStatus, claim, settle
from pyoco_server.model.runlog import LiveLines, LogChunk, LogLine, LogStream
from pyoco_server.settings.environment import Settings

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


def live(at: float, *found: str, task: str = "t") -> LiveLines:
    return LiveLines(at, [LogLine(at, task, LogStream.STDERR, text) for text in found])


async def test_what_is_not_finished_is_shown_to_those_who_follow_and_stored_nowhere(here: Running) -> None:
    run_id = await here.submit()
    store = here.gateway.logs
    before = await store.end()
    async with here.http.stream("GET", f"/runs/{run_id}/logs?follow=true&task=t") as answer:
        stream = events(answer)
        assert (await anext(stream))["event"] == "heartbeat"
        await store.show(run_id, LogChunk(1, 0, [], live(1.0, "10 %")))
        event = await anext(stream)
        assert (event["event"], texts(event["data"]["live"]), event.get("id")) == ("live", ["10 %"], None)
        await store.show(run_id, LogChunk(1, 0, [], live(2.0, "another task's", task="u")))
        assert (await anext(stream))["data"]["live"] == []
        await store.show(run_id, LogChunk(1, 0, [], live(3.0, "90 %")))
        assert texts((await anext(stream))["data"]["live"]) == ["90 %"]
        assert await store.end() == before
        await store.publish(run_id, chunk(1, "100 %")._replace(live=live(4.0)), "x.1")
        event = await anext(stream)
        assert (event["event"], texts(event["data"]["lines"]), event["data"]["live"]) == ("log", ["100 %"], [])
        await store.show(run_id, LogChunk(1, 0, [], live(2.5, "80 %")))  # it comes late
        await store.publish(run_id, chunk(2, "last"), "x.2")
        await end(here, run_id)
        rest = [event async for event in stream if event["event"] != "heartbeat"]
    assert [event["event"] for event in rest] == ["log", "end"]
    assert "live" not in rest[0]["data"]


async def test_what_a_lost_worker_had_not_finished_ends_its_attempt(here: Running) -> None:
    run_id = await here.submit()
    store = here.gateway.logs
    await store.publish(run_id, chunk(1, "a")._replace(live=live(1.0, "10 %")), "x.1")
    await store.publish(run_id, chunk(2, "b")._replace(live=live(2.0, "20 %")), "x.2")
    await store.publish(run_id, chunk(3, "c"), "x.3")

    async def read(query: str = "") -> list[str]:
        return texts((await here.http.get(f"/runs/{run_id}/logs{query}")).json()["lines"])

    async def follow(query: str = "") -> list[list[str]]:
        async with here.http.stream("GET", f"/runs/{run_id}/logs?follow=true{query}") as answer:
            return [texts(event["data"]["lines"]) async for event in events(answer) if event["event"] == "log"]

    assert await read() == await read("?tail=9") == ["a", "b", "c", "20 %"]
    assert await read("?tail=2") == ["c", "20 %"] and await read("?tail=0") == []
    assert await read("?stream=stdout") == ["a", "b", "c"] and await read("?stream=stderr") == ["20 %"]
    await store.publish(run_id, LogChunk(2, 1, chunk(1, "d").lines, live(1.5, "5 %")), "y.1")
    await store.publish(run_id, LogChunk(1, 4, chunk(1, "late").lines), "x.4")
    await end(here, run_id)
    everything = ["a", "b", "c", "20 %", "d", "late", "5 %"]
    assert await read() == everything
    assert [text for found in await follow() for text in found] == everything
    assert await read("?tail=3") == ["d", "late", "5 %"]
    assert (await follow("&tail=2"))[-1] == ["5 %"]


async def test_what_the_next_attempt_shows_does_not_hide_what_was_left_of_the_last_one(here: Running) -> None:
    run_id = await here.submit()
    store = here.gateway.logs
    await store.publish(run_id, chunk(1, "a")._replace(live=live(1.0, "10 %")), "x.1")
    async with here.http.stream("GET", f"/runs/{run_id}/logs?follow=true") as answer:
        stream = events(answer)
        event = await anext(stream)
        assert (texts(event["data"]["lines"]), texts(event["data"]["live"])) == (["a"], ["10 %"])
        assert (await anext(stream))["event"] == "heartbeat"
        await store.show(run_id, LogChunk(2, 0, [], live(2.0, "5 %")))
        assert texts((await anext(stream))["data"]["live"]) == ["5 %"]
        await store.publish(run_id, LogChunk(2, 1, chunk(1, "b").lines), "y.1")
        event = await anext(stream)
        assert [(line["attempt"], line["text"]) for line in event["data"]["lines"]] == [(1, "10 %"), (2, "b")]
        await end(here, run_id)
        rest = [event["data"] async for event in stream if event["event"] in ("log", "end")]
    assert texts(rest[0]["lines"]) == ["5 %"] and rest[0]["live"] == [] and rest[1]["status"] == "COMPLETED"


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
