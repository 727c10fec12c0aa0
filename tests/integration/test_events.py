"""What a page asks of the gateway: its stream, counts, and a run's flow."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.gateway.routes import events as route
from pyoco_server.gateway.streaming.page_events import EventFilter, EventStream
from pyoco_server.model.access import Caller, Role
from pyoco_server.model.deadletter import DeadLetter, DeadLetterReason
from pyoco_server.model.run import EndReason as End
from pyoco_server.model.run import RunRecord, RunStatus, claim, settle
from pyoco_server.model.worker import WorkerRecord
from tests.wheels import make_wheel

from .test_gateway import DEADLINE, FLOW, Running, events, until
from .test_gateway import here as here  # noqa: PLC0414 - a fixture

pytestmark = pytest.mark.anyio


class Page:
    """A listener that remembers where it is."""

    def __init__(self, stream: AsyncIterator[dict[str, Any]]) -> None:
        self._stream = stream
        self.place = ""

    async def next(self, kind: str) -> dict[str, Any]:
        """Give the next event of a kind; those before it are passed over."""

        async def found() -> dict[str, Any]:
            async for event in self._stream:
                self.place = event.get("id", self.place)
                if event["event"] == kind:
                    return dict(event["data"])
            raise AssertionError(f"the stream ended without {kind}")

        return await asyncio.wait_for(found(), DEADLINE)

    async def runs(self, count: int = 1) -> dict[str, str]:
        """Give the statuses of the next runs."""
        seen: dict[str, str] = {}
        while len(seen) < count:
            seen |= {item["run_id"]: item["status"] for item in (await self.next("runs"))["items"]}
        return seen


@contextlib.asynccontextmanager
async def page(here: Running, last: str = "", **query: str) -> AsyncIterator[Page]:
    headers = {"Last-Event-ID": last} if last else {}
    async with here.http.stream("GET", "/events", params=query, headers=headers) as answer:
        assert answer.status_code == 200
        listener = Page(events(answer))
        await listener.next("hello")
        yield listener


async def test_runs_counts_and_workers_as_they_change(here: Running) -> None:
    async with page(here) as listener:
        counts = await listener.next("counts")
        assert set(counts["counts"].values()) == {0}
        first = await here.submit(tag="cpu")
        assert await listener.runs() == {first: "PENDING"}
        assert (await listener.next("counts"))["counts"]["PENDING"] == 1
        await here.gateway.workers.put(WorkerRecord(worker_id="w", wheel_sync={"enabled": True, "plugins": [1]}))
        (worker,) = (await listener.next("workers"))["items"]
        assert worker["worker_id"] == "w" and worker["state"] == "DISCONNECTED"  # its record is from 1970
        assert worker["wheel_sync"]["enabled"] is True and "plugins" not in worker["wheel_sync"]
        await here.http.post(f"/runs/{first}/cancel")
        assert await listener.runs() == {first: "CANCELLED"}
        await here.gateway.runs.remove(first, (await here.gateway.runs.get(first)).revision)  # type: ignore[union-attr]
        assert (await listener.next("runs"))["removed"] == [first]
        beat = await listener.next("heartbeat")
        assert beat["nats_up"] is True and beat["caught_up"] is True
    await until(lambda: here.gateway.open_events == 0)
    assert not here.gateway.index.news.heard


@pytest.mark.slow
async def test_a_worker_that_falls_silent_is_told(here: Running) -> None:
    here.gateway.worker_index._timeout = 3.0
    async with page(here) as listener:
        await here.gateway.workers.put(WorkerRecord(worker_id="w").seen([], None))
        assert (await listener.next("workers"))["items"][0]["state"] == "IDLE"
        assert (await listener.next("workers"))["items"][0]["state"] == "DISCONNECTED"


async def test_letters_and_wheels_are_told_whoever_changes_them(here: Running, tmp_path: Path) -> None:
    letters, wheels = here.gateway.letters, here.gateway.wheels
    async with page(here) as listener:
        await listener.next("letters")  # what came before is for the page to read
        await listener.next("wheels")
        await listener.next("heartbeat")  # and nothing more comes of it
        body = DeadLetter(reason=DeadLetterReason.INVALID_JOB, tag="cpu")
        letter_id = await letters.publish(body, "cause")
        await listener.next("letters")
        await letters.remove(letter_id)
        await listener.next("letters")
        with make_wheel(tmp_path, "p", "1").open("rb") as file:
            await wheels.put("p-1-py3-none-any.whl", file, [], requires_python=None)
        await listener.next("wheels")
    await until(lambda: not here.gateway.stream_watch._boxes)


async def test_coming_back(here: Running) -> None:
    first, second = await here.submit(), await here.submit()
    async with page(here) as listener:
        await here.http.post(f"/runs/{first}/cancel")
        assert await listener.runs() == {first: "CANCELLED"}
    third = await here.submit()
    await here.http.post(f"/runs/{second}/cancel")
    await until(lambda: here.gateway.index.totals.by_status()["CANCELLED"] == 2)
    async with page(here, listener.place) as again:
        assert await again.runs(2) == {second: "CANCELLED", third: "PENDING"}
    async with page(here, "of-another-gateway") as lost:
        await lost.next("reset")


async def test_only_what_is_asked_for(here: Running) -> None:
    async with page(here, tag="cpu", flow="f") as listener:
        await here.submit(tag="gpu")
        run_id = await here.submit(tag="cpu")
        assert await listener.runs() == {run_id: "PENDING"}
        assert (await listener.next("counts"))["counts"]["PENDING"] == 2
    async with page(here, run_id=run_id) as listener:
        await here.submit(tag="cpu")
        await here.http.post(f"/runs/{run_id}/cancel")
        assert await listener.runs() == {run_id: "CANCELLED"}


async def test_each_tenant_hears_of_its_own(here: Running) -> None:
    stream = EventStream(here.gateway, Caller("x", "k", Role.VIEWER), EventFilter(), None, "page")
    async with contextlib.aclosing(stream.events()) as told:
        assert (await anext(told)).event == "hello"
        for run_id, tenant in (("mine", "x"), ("theirs", "y"), ("nobodys", None)):
            await here.gateway.runs.create(RunRecord(run_id=run_id, flow_name="f", tenant_id=tenant))
        await until(lambda: here.gateway.index.count() == 3)
        seen = []
        while True:
            event = await asyncio.wait_for(anext(told), DEADLINE)
            data = json.loads(event.data)  # type: ignore[arg-type]
            if event.event == "runs":
                seen += [item["run_id"] for item in data["items"]]
            if event.event == "counts" and data["counts"]["PENDING"]:
                assert data["counts"]["PENDING"] == 1
                break
        assert seen == ["mine"]
    place = here.gateway.index.news.place
    for run_id in ("mine", "theirs"):
        await here.gateway.runs.change(run_id, lambda record: record.evolve(error="changed"))
    await until(lambda: here.gateway.index.news.place != place and here.gateway.index.news.since(place) is not None
                and len(here.gateway.index.news.since(place) or {}) == 2)  # fmt: skip
    back = EventStream(here.gateway, Caller("x", "k", Role.VIEWER), EventFilter(), place, "page")
    async with contextlib.aclosing(back.events()) as told:
        await anext(told)
        missed = json.loads((await anext(told)).data)  # type: ignore[arg-type]
        assert [item["run_id"] for item in missed["items"]] == ["mine"] and missed["removed"] == []


async def test_listeners_are_bounded(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "_MOST_OPEN", 1)
    async with page(here):
        answer = await here.http.get("/events")
        assert (answer.status_code, answer.json()["code"]) == (503, "too_many_streams")


async def test_counts_by_filter(here: Running) -> None:
    runs = [await here.submit(tag=tag) for tag in ("cpu", "cpu", "gpu")]
    await here.http.post(f"/runs/{runs[0]}/cancel")
    await until(lambda: here.gateway.index.totals.by_status()["CANCELLED"] == 1)
    counted = (await here.http.get("/runs/counts", params={"tag": "cpu", "status": "FAILED"})).json()
    assert counted["complete"] and (counted["counts"]["PENDING"], counted["counts"]["CANCELLED"]) == (1, 1)
    both = (await here.http.get("/runs", params={"status": "PENDING, CANCELLED", "tag": "cpu"})).json()
    assert {item["run_id"] for item in both} == set(runs[:2])
    assert [item["run_id"] for item in (await here.http.get("/runs", params={"id": runs[2][:13]})).json()] == [runs[2]]
    many = await here.http.get("/runs", params={"status": ",".join(map(str, range(11)))})
    assert many.status_code == 422 and "status" in many.json()["detail"]


async def test_runs_of_a_worker_and_reruns_of_a_run(here: Running) -> None:
    record = RunRecord(run_id="old", flow_name="f")
    record = settle(claim(record, worker_id="w1", instance_id="i", job_seq=1), RunStatus.FAILED, End.TASK_FAILED, "no")
    await here.store("old", record.to_json())
    again = (await here.http.post("/runs/old/rerun")).json()["run_id"]
    assert [item["run_id"] for item in (await here.http.get("/runs?worker=w1")).json()] == ["old"]
    assert [item["run_id"] for item in (await here.http.get("/runs?rerun_of=old")).json()] == [again]


async def test_the_flow_of_a_run(here: Running) -> None:
    answer = await here.http.post("/runs/yaml", files={"workflow": ("f", FLOW.encode())}, data={"flow_name": "f"})
    run_id = answer.json()["run_id"]
    text = await here.http.get(f"/runs/{run_id}/yaml")
    assert text.text == FLOW and text.headers["content-type"].startswith("text/plain")
    graph = (await here.http.get(f"/runs/{run_id}/graph")).json()
    assert graph["source"] == "flow.yaml" and [node["name"] for node in graph["nodes"]] == ["add_one", "to_text"]
    assert [(edge["source"], edge["target"]) for edge in graph["edges"]] == [("n0", "n1")]
    plain = await here.submit()
    missing = await here.http.get(f"/runs/{plain}/yaml")
    assert (missing.status_code, missing.json()["code"]) == (404, "flow_not_stored")
    assert (await here.http.get(f"/runs/{plain}/graph")).json()["source"] is None
    for path in ("yaml", "graph"):
        assert (await here.http.get(f"/runs/unknown/{path}")).json()["code"] == "run_not_found"


async def test_whoami(here: Running) -> None:
    answer = (await here.http.get("/whoami")).json()
    assert (answer["auth_mode"], answer["role"], answer["tenant_id"]) == ("none", "operator", None)
