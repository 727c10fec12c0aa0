"""What the gateway answers, to good requests and to rubbish."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from .conftest import TUTORIAL, System


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"flow_name": ""}, 422, "flow_name"),
        ({}, 422, "flow_name"),
        ({"flow_name": "x", "params": None}, 422, "params"),
        ({"flow_name": "x", "tag": ""}, 422, "invalid tag"),
        ({"flow_name": "x", "tag": "a.b"}, 422, "invalid tag"),
        ({"flow_name": "x", "tag": "a>"}, 422, "invalid tag"),
        ({"flow_name": "x", "timeout_sec": 0}, 422, "timeout_sec"),
        ({"flow_name": "x", "params": {"a": "x" * 300_000}}, 413, "300"),
        ({"flow_name": "x", "params": {"a": "x" * 5_000_000}}, 413, "body"),
        ({"flow_name": "x", "unknown": 1, "tag": "nobody"}, 200, "PENDING"),
    ],
)
def test_submissions(http: httpx2.Client, body: dict[str, object], status: int, said: str) -> None:
    answer = http.post("/runs", json=body)
    assert answer.status_code == status
    assert said in answer.text
    assert status == 200 or {"detail", "code", "hint"} <= set(answer.json())


@pytest.mark.parametrize("raw", [b"{", b'{"flow_name":"\xff"}', b"[]", b"null", b"\x00" * 100])
def test_bodies_that_are_no_json(http: httpx2.Client, raw: bytes) -> None:
    answer = http.post("/runs", content=raw, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_odd_characters_break_no_list(http: httpx2.Client) -> None:
    raw = rb'{"flow_name": "odd", "params": {"b": "\ud800"}, "tag": "odd", "tags": ["\udfff"]}'
    run_id = http.post("/runs", content=raw, headers={"content-type": "application/json"}).json()["run_id"]
    assert [run["run_id"] for run in http.get("/runs?tag=odd").json()] == [run_id]
    assert [run["run_id"] for run in http.get("/runs?tag=odd&include=full").json()] == [run_id]
    assert http.get(f"/runs/{run_id}").json()["params"]["b"] == "?"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "cursor=rubbish", "updated_after=nan", "updated_after=x"]
)
def test_bad_list_queries(http: httpx2.Client, query: str) -> None:
    assert http.get(f"/runs?{query}").status_code == 422


@pytest.mark.parametrize("run_id", ["nobody", "a.b", "a b", "*", ">", "x" * 200, "日本"])
@pytest.mark.parametrize("suffix", ["", "/tasks", "/watch"])
def test_unknown_runs(http: httpx2.Client, run_id: str, suffix: str) -> None:
    answer = http.get(f"/runs/{run_id}{suffix}")
    assert (answer.status_code, answer.json()["detail"]) == (404, "run not found")


def test_flow_files(http: httpx2.Client) -> None:
    def post(text: str, **form: str) -> httpx2.Response:
        return http.post("/runs/yaml", files={"workflow": ("f", text.encode())}, data={"flow_name": "f", **form})

    assert post(TUTORIAL, tag=" ").json()["status"] == "PENDING"
    assert "line 4" in post(TUTORIAL.replace(">>", ">>>")).json()["detail"]
    assert post("#" * 300_000).status_code == 413
    assert post(TUTORIAL, params="[]").status_code == 422
    assert post(TUTORIAL, flow_name=" \t").status_code == 422
    run_id = post(TUTORIAL, params='{"x": 5, "y": 6}', tag="waits").json()["run_id"]
    run = http.get(f"/runs/{run_id}").json()
    assert run["params"] == {"x": 5, "y": 6}
    assert run["tasks"] == {"add_one": "PENDING", "to_text": "PENDING"}
    assert "task_records" not in run
    by_hash = http.get("/runs", params={"workflow_yaml_sha256": run["workflow_yaml_sha256"]}).json()
    assert run_id in [item["run_id"] for item in by_hash["items"]]


def test_lists_filter_and_page(http: httpx2.Client) -> None:
    ids = [http.post("/runs", json={"flow_name": "paged", "tag": "paged"}).json()["run_id"] for _ in range(25)]
    plain = http.get("/runs?flow=paged&tag=paged&status=PENDING&limit=200").json()
    assert [run["run_id"] for run in plain] == ids[::-1]
    seen, cursor = [], ""
    while cursor is not None:
        page = http.get("/runs", params={"flow": "paged", "limit": 7, "cursor": cursor}).json()
        seen += [run["run_id"] for run in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ids[::-1]
    after = http.get("/runs", params={"flow": "paged", "updated_after": plain[5]["updated_at"]}).json()
    assert [run["run_id"] for run in after["items"]] == ids[::-1][:5]
    assert http.get("/runs?flow=paged&status=FAILED").json() == []


def test_a_watch_goes_on_after_the_last_event(system: System, http: httpx2.Client) -> None:
    run_id = http.post("/runs", json={"flow_name": "x", "tag": "watched"}).json()["run_id"]
    first = next(iter(system.client.watch_run(run_id)))
    again = system.client.watch_run(run_id, last_event_id=first["id"])
    assert next(again)["event"] == "heartbeat"
    started = time.monotonic()
    assert next(again)["event"] == "heartbeat"
    assert time.monotonic() - started < 5  # existing clients give up after five seconds of silence
    system.client.cancel_run(run_id)
    last = next(event for event in again if event["event"] == "snapshot")
    assert last["data"]["snapshot"]["status"] == "CANCELLED"
    assert int(last["id"]) > int(first["id"])
    assert list(again) == []
    since = last["data"]["snapshot"]["updated_at"]
    assert [event["event"] for event in system.client.watch_run(run_id, since=since)] == ["heartbeat"]


def test_many_watches_of_one_run(system: System, http: httpx2.Client) -> None:
    run_id = http.post("/runs", json={"flow_name": "x", "tag": "watched"}).json()["run_id"]

    def watch(_: int) -> str:
        events = httpx2.get(f"{system.url}/runs/{run_id}/watch?timeout_sec=30", timeout=30).text
        return str(json.loads(events.strip().splitlines()[-1].removeprefix("data: "))["snapshot"]["status"])

    with ThreadPoolExecutor(20) as pool:
        results = pool.map(watch, range(20))
        system.client.cancel_run(run_id)
        assert set(results) == {"CANCELLED"}


def test_the_server_stops_in_order_while_a_watch_is_open(tmp_path_factory: pytest.TempPathFactory) -> None:
    from .conftest import running_system

    with running_system(tmp_path_factory.mktemp("stop")) as system:
        run_id = system.client.submit_run("x", tag="nobody")["run_id"]
        watch = system.client.watch_run(run_id, timeout_sec=600)
        assert next(watch)["event"] == "snapshot"
        started = time.monotonic()
        assert system.server.stop() == 0
        assert time.monotonic() - started < 15
        list(watch)


def test_the_page_and_its_language(http: httpx2.Client) -> None:
    japanese = http.get("/", headers={"accept-language": "ja,en;q=0.5"})
    assert 'lang="ja"' in japanese.text
    assert "default-src 'none'" in japanese.headers["content-security-policy"]
    assert 'lang="en"' in http.get("/").text
    assert http.get("/static/app.js").status_code == 200
    assert http.get("/static/../index.py").status_code == 404


def test_ready_tells_what_an_acknowledgement_means(http: httpx2.Client) -> None:
    ready = http.get("/ready").json()
    assert ready["status"] == "ready"
    assert "power cut" in ready["durability"]["acknowledged_means"]
    assert ready["index"]["caught_up"] is True


def test_several_tags_and_slots(system: System) -> None:
    system.worker("--concurrency", "3", worker_id="multi", tags="m1,m2,m3")
    code = "import os, time\ndef t(n, folder):\n" + (
        "    open(f'{folder}/at-{n}', 'w').close()\n"
        "    while not all(os.path.exists(f'{folder}/at-{i}') for i in range(3)): time.sleep(0.01)\n"
    )
    flow = system.flow(code)
    ids = [
        system.client.submit_run_yaml(
            flow, flow_name="f", tag=f"m{n + 1}", params={"n": n, "folder": str(system.folder)}
        )["run_id"]
        for n in range(3)
    ]  # each of them ends only when all three run at once
    assert [system.end(run_id)["status"] for run_id in ids] == ["COMPLETED"] * 3


def test_nothing_outlives_a_killed_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    import signal

    import psutil

    from .conftest import Process

    arguments = "up --port 0 --with-nats --nats-client-port -1 --nats-http-port -1 --with-worker".split()
    server = Process(["pyoco-server", *arguments], tmp_path_factory.mktemp("killed"))
    server.wait_for("worker ready")
    family = psutil.Process(server.popen.pid).children(recursive=True)
    assert len(family) == 4  # nats-server, the worker, its guardian, its child
    server.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=40)
    assert alive == []
