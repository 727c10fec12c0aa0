"""One key, one run: repeats, races, and NATS that fails between the record and the job."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from pyoco_server import AsyncPyocoHttpClient
from pyoco_server.errors import RevisionConflict, StoreUnavailable
from pyoco_server.model.run import RunRecord, claim, request_cancel
from pyoco_server.settings.environment import Settings
from pyoco_server.store.submissions import Submissions

from .test_gateway import FLOW, Running, running, until

pytestmark = pytest.mark.anyio

BODY = {"flow_name": "f", "params": {"a": 1}, "idempotency_key": "k"}


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as server:
        yield server


async def post(here: Running, status: int = 200, header: str | None = None, **body: Any) -> dict[str, Any]:
    headers = {} if header is None else {"Idempotency-Key": header}
    answer = await here.http.post("/runs", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def post_yaml(here: Running, status: int = 200, **data: str) -> dict[str, Any]:
    answer = await here.http.post("/runs/yaml", data={"flow_name": "main", **data}, files={"workflow": FLOW.encode()})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def jobs(here: Running) -> int:
    info = await here.gateway.connection.js.stream_info(here.gateway.settings.work_stream)
    return int(info.state.messages)


async def records(here: Running) -> int:
    info = await here.gateway.connection.js.stream_info(f"KV_{here.gateway.settings.runs_kv_bucket}")
    return int(info.state.messages)


async def test_a_repeat_finds_the_run_wherever_the_key_stands(here: Running) -> None:
    first = await post(here, **BODY)
    again = await post(here, **BODY)
    by_header = await post(here, flow_name="f", params={"a": 1}, header="k")
    both = await post(here, **{**BODY, "idempotency_key": " k "}, header="k")
    assert (first["created"], first["status"]) == (True, "PENDING")
    assert [again["created"], by_header["created"], both["created"]] == [False] * 3
    assert {answer["run_id"] for answer in (again, by_header, both)} == {first["run_id"]}
    assert (await here.http.get(f"/runs/{first['run_id']}")).json()["idempotency_key"] == "k"
    assert "submission_digest" not in (await here.http.get(f"/runs/{first['run_id']}?include=full")).text
    assert (await jobs(here), await records(here)) == (1, 1)
    other = await post(here, **{**BODY, "idempotency_key": "k2"})
    none = await post(here, flow_name="f")
    assert len({first["run_id"], other["run_id"], none["run_id"]}) == 3


async def test_yaml_and_its_key(here: Running) -> None:
    first = await post_yaml(here, idempotency_key="ключ", params='{"x": 1}')
    assert (await post_yaml(here, idempotency_key="ключ"))["run_id"] == first["run_id"]  # 1 is the flow's default
    answer = await here.http.post("/runs/yaml", data={"flow_name": "main"}, files={"workflow": FLOW.encode()},
                                  headers={"Idempotency-Key": "ключ".encode()})  # fmt: skip
    assert answer.json()["run_id"] == first["run_id"]
    await post_yaml(here, 422, idempotency_key="")
    assert (await post_yaml(here, 409, idempotency_key="ключ", params='{"x": 2}'))["code"] == "idempotency_key_reused"
    await post(here, 409, flow_name="main", params={"x": 1}, idempotency_key="ключ")  # without the flow file


@pytest.mark.parametrize(
    "key", ["夜間\u30002024-01-31", "no\xa0break", "\U0001f468\u200d\U0001f469", "à\x20la", "x" * 255]
)
async def test_a_key_is_text(here: Running, key: str) -> None:
    first = await post(here, flow_name="main", params={"x": 1}, idempotency_key=key)
    headers = {"Idempotency-Key": key.encode(), "Content-Type": "application/json"}
    answer = await here.http.post("/runs", content=b'{"flow_name":"main","params":{"x":1}}', headers=headers)
    assert answer.json() == {**first, "created": False}
    await post_yaml(here, 409, idempotency_key=key)  # another flow: the same key
    async with AsyncPyocoHttpClient(here.listener.url) as client:
        assert (await client.submit_run("main", {"x": 1}, idempotency_key=key))["run_id"] == first["run_id"]
        again = [await client.rerun_run(first["run_id"], idempotency_key=key[:-1]) for _ in range(2)]
    assert [answer["created"] for answer in again] == [True, False]
    assert (await here.http.get(f"/runs/{first['run_id']}")).json()["idempotency_key"] == key


async def test_another_request_with_the_key_is_refused(here: Running) -> None:
    first = await post(here, **BODY)
    for other in ({"flow_name": "g"}, {"params": {"a": 2}}, {"params": {"a": True}}, {"tag": "gpu"}, {"tags": ["x"]},
                  {"timeout_sec": 5}, {"max_attempts": 1}):  # fmt: skip
        refused = await post(here, 409, **{**BODY, **other})
        assert refused["code"] == "idempotency_key_reused" and refused["hint"] and first["run_id"] in refused["detail"]
    assert (await post(here, **BODY, tag="default", tags=["default"], timeout_sec=None))["created"] is False
    assert await records(here) == 1


async def test_bad_keys(here: Running) -> None:
    for key in ("", "  ", "\u3000", "a\nb", "a\x1b[2Jb", "a\u2028b", "a\u202eb", "x" * 256, 5):
        answer = await post(here, 422, flow_name="f", idempotency_key=key)
        assert "idempotency_key" in str(answer) and answer["hint"]
    await post(here, 422, flow_name="f", header="")
    assert "differ" in (await post(here, 422, **BODY, header="other"))["detail"]
    assert await records(here) == 0


async def test_the_answer_tells_the_status_of_now(here: Running) -> None:
    run_id = (await post(here, **BODY))["run_id"]
    await here.gateway.runs.change(run_id, lambda run: claim(run, worker_id="w", instance_id="i", job_seq=1))
    assert (await post(here, **BODY))["status"] == "RUNNING"
    await here.gateway.runs.change(run_id, lambda run: request_cancel(run, by=None, reason=None))
    assert (await post(here, **BODY))["status"] == "CANCELLING"
    assert await jobs(here) == 1


@pytest.mark.slow
async def test_a_thousand_parallel_posts_with_one_key_are_one_run(settings: Settings) -> None:
    async with running(settings) as here, running(settings) as second:
        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(limits=limits, timeout=60) as http:
            urls = [here.listener.url, second.listener.url]
            answers = await asyncio.gather(*(http.post(f"{urls[n % 2]}/runs", json=BODY) for n in range(1000)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["run_id"] for answer in answers}) == 1
        assert sum(answer.json()["created"] for answer in answers) == 1
        assert (await jobs(here), await records(here)) == (1, 1)


def failing(method: Any, times: int, *, after: bool) -> Callable[..., Any]:
    """Let a call of the store fail so many times: before it is done, or after, when only its answer is lost."""
    left = [times]

    async def call(*arguments: Any, **options: Any) -> Any:
        if left[0] <= 0:
            return await method(*arguments, **options)
        left[0] -= 1
        if after:
            await method(*arguments, **options)
        raise StoreUnavailable("NATS did not answer (a test)")

    return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["create", "publish"])
async def test_a_keyed_submission_survives_a_lost_step(
    here: Running, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    place = here.gateway.runs if step == "create" else here.gateway.queue
    with monkeypatch.context() as patch:
        patch.setattr(place, step, failing(getattr(place, step), 3, after=after))
        refused = await post(here, 503, **BODY)
        assert refused["code"] == "nats_unavailable"
        assert await records(here) == int(after or step == "publish")  # never taken back
    made = await post(here, **BODY)
    assert made["created"] is (step == "create" and not after)
    assert (await jobs(here), await records(here)) == (1, 1)
    await until(lambda: here.gateway.index.waiting("default") == 1)


async def test_a_slower_first_request_does_not_undo_what_was_answered(
    here: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, publish = here.gateway.queue, here.gateway.queue.publish
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def stuck(*arguments: Any, **options: Any) -> Any:
        begun.set()
        await go_on.wait()
        raise StoreUnavailable("NATS did not answer (a test)")

    monkeypatch.setattr(queue, "publish", stuck)
    first = asyncio.create_task(post(here, 503, **BODY))
    await begun.wait()  # the record is there, its job is not
    monkeypatch.setattr(queue, "publish", publish)
    answered = await post(here, **BODY)
    monkeypatch.setattr(queue, "publish", stuck)
    go_on.set()
    await first
    stored = await here.gateway.runs.get(answered["run_id"])
    assert stored is not None and await jobs(here) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_run_without_a_key_is_taken_back(here: Running, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    monkeypatch.setattr(here.gateway.queue, "publish", failing(here.gateway.queue.publish, 3, after=after))
    await post(here, 503, flow_name="f")
    assert (await here.http.get("/runs")).json() == []
    listed = await post(here, flow_name="f")
    assert [item["run_id"] for item in (await here.http.get("/runs")).json()] == [listed["run_id"]]


async def test_a_run_that_a_worker_has_is_not_taken_back(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = here.gateway.runs

    async def publish(job: Any, *_: Any, **__: Any) -> int:
        await runs.change(job.run_id, lambda run: claim(run, worker_id="w", instance_id="i", job_seq=1))
        raise StoreUnavailable("the acknowledgement is lost (a test)")

    monkeypatch.setattr(here.gateway.queue, "publish", publish)
    run_id = (await post(here, flow_name="f"))["run_id"]
    assert (await here.http.get(f"/runs/{run_id}")).json()["status"] == "RUNNING"


@pytest.mark.parametrize("step", ["create", "remove"])
async def test_what_cannot_be_taken_back_is_in_doubt(here: Running, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    doubts: list[tuple[str, int | None]] = []
    gateway = here.gateway
    submissions = Submissions(
        gateway.runs, gateway.submissions.jobs, in_doubt=lambda run_id, revision: doubts.append((run_id, revision))
    )
    monkeypatch.setattr(gateway.queue, "publish", failing(gateway.queue.publish, 3, after=False))
    monkeypatch.setattr(gateway.runs, step, failing(getattr(gateway.runs, step), 1, after=step == "create"))
    with pytest.raises(StoreUnavailable):
        await submissions.submit(RunRecord(run_id="r", flow_name="f"))
    assert doubts == [("r", None if step == "create" else 1)]
    assert await records(here) == 1


async def test_a_run_that_one_leader_refused_and_another_stored_is_in_doubt(
    here: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubts: list[str] = []
    gateway, create = here.gateway, here.gateway.runs.create

    async def contradict(record: RunRecord) -> int:
        await create(record)
        raise RevisionConflict("a leader of the past")

    monkeypatch.setattr(gateway.runs, "create", contradict)
    submissions = Submissions(gateway.runs, gateway.submissions.jobs, in_doubt=lambda run_id, _: doubts.append(run_id))
    with pytest.raises(StoreUnavailable):
        await submissions.submit(RunRecord(run_id="r", flow_name="f"))
    assert doubts == ["r"]


async def test_a_key_lives_again_when_its_run_was_removed(here: Running) -> None:
    made = await post(here, **BODY)
    stored = await here.gateway.runs.get(made["run_id"])
    assert stored is not None
    await here.gateway.runs.remove(made["run_id"], stored.revision)
    assert (await post(here, **{**BODY, "params": {}}))["created"] is True
