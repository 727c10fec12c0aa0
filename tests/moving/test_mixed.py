"""A worker of the existing system behind our gateway: right results, or a loud refusal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyoco_server.errors import PyocoError
from tests.acceptance.conftest import System, running_system

from .existing import Existing
from .mixed import FLOW, OURS_ONLY, prepare, starts, their_worker, until

pytestmark = pytest.mark.moving


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("mixed")
    prepare(folder)
    with running_system(folder, PYOCO_RECONCILE_INTERVAL_SEC="1") as running:
        yield running


def output(run: dict[str, Any], task: str) -> Any:
    return run["task_records"][task]["output"]


def ended(system: System, run_id: str) -> dict[str, Any]:
    system.end(run_id)
    return until(lambda: (found := system.client.get_run_with_records(run_id))["status"] != "RUNNING" and found)


def test_their_worker_runs_what_it_can_and_refuses_the_rest(existing: Existing, system: System) -> None:
    submit = system.client.submit_run_yaml
    with their_worker(existing, system, "old"):
        by_name = ended(system, system.client.submit_run("byname", {"n": 21}, tag="old", tags=["old", "x"])["run_id"])
        assert by_name["status"] == "COMPLETED", by_name
        assert by_name["params"] == {"n": 21} and by_name["tags"] == ["old", "x"]
        assert (by_name["attempt"], by_name["end_reason"]) == (1, "completed") and by_name["submitted_at"]

        for params, result in ((None, "v=10"), ({"n": 7}, "v=14")):
            run = ended(system, submit(FLOW, flow_name="main", tag="old", params=params)["run_id"])
            assert (run["status"], output(run, "text")) == ("COMPLETED", result)
        key = {"tag": "old", "idempotency_key": "once"}
        once = system.client.submit_run("byname", {"n": 2}, **key)
        ended(system, once["run_id"])
        assert system.client.submit_run("byname", {"n": 2}, **key)["run_id"] == once["run_id"]
        with pytest.raises(PyocoError, match="another request"):
            system.client.submit_run("byname", {"n": 3}, **key)
        assert starts(system.folder)[2] == 1

        large = FLOW + "".join(f"# {'x' * 98}\n" for _ in range(2000))
        run = ended(system, submit(large, flow_name="main", tag="old", params={"n": 8})["run_id"])
        assert (run["status"], output(run, "text")) == ("COMPLETED", "v=16")
        failed = ended(system, submit(FLOW, flow_name="main", tag="old", params={"fails": True, "n": 9})["run_id"])
        assert (failed["status"], failed["error"]) == ("FAILED", "task 9 fails")

        for text, limit in ((OURS_ONLY, None), (FLOW, 60)):
            made = submit(text, flow_name="main", tag="old", params={"n": 1}, timeout_sec=limit)
            refused = ended(system, made["run_id"])
            assert (refused["status"], refused["end_reason"]) == ("FAILED", "invalid_job")
            assert "a worker of the existing pyoco-server refused the run" in refused["error"]
            assert ("tasks.double.retries" in refused["error"]) != ("timeout_sec" in refused["error"])
        assert starts(system.folder)[1] == 0

        [worker] = system.client.get_workers(worker_id="theirs")
        assert worker["existing_system"] and worker["slots_in_use"] == 0
        with httpx2.Client(base_url=system.url) as http:
            found = {each["code"]: each for each in http.get("/doctor").json()["findings"]}
            assert "theirs" in found["workers_of_existing_system"]["message"]
            answer = http.post("/workers/theirs/drain")
        assert answer.status_code == 409 and "knows no draining" in answer.json()["detail"]


def test_ours_beside_theirs(existing: Existing, system: System) -> None:
    """Each run once, with its own params, and what only ours can run is run by ours."""
    system.worker(worker_id="ours", tags="both")
    with their_worker(existing, system, "both", "beside"):
        submit = system.client.submit_run_yaml
        runs = {n: submit(FLOW, flow_name="main", tag="both", params={"n": n})["run_id"] for n in range(1000, 1040)}
        hard = {
            n: submit(OURS_ONLY, flow_name="main", tag="both", params={"n": n})["run_id"] for n in range(2000, 2004)
        }
        for n, run_id in {**runs, **hard}.items():
            run = ended(system, run_id)
            assert (run["status"], output(run, "text")) == ("COMPLETED", f"v={2 * n}"), run
        workers = {system.client.get_run(run_id)["worker_id"] for run_id in runs.values()}
        assert {system.client.get_run(run_id)["worker_id"] for run_id in hard.values()} == {"ours"}
        assert len(workers - {None}) >= 1
        begun = starts(system.folder)
        assert {begun[n] for n in (*runs, *hard)} == {1}


def test_a_cancel_reaches_their_worker(existing: Existing, system: System) -> None:
    with their_worker(existing, system, "stop", "stopped"):
        run = system.client.submit_run_yaml(FLOW, flow_name="main", tag="stop", params={"n": 3, "sec": 3.0})["run_id"]
        until(lambda: starts(system.folder)[3])
        assert system.client.cancel_run(run)["status"] == "CANCELLING"
        assert ended(system, run)["status"] == "CANCELLED"


def test_their_gateway_and_client_with_our_worker(existing: Existing, system: System) -> None:
    environment = {"PYTHONPATH": str(system.folder), "PYOCO_CANCEL_GRACE_PERIOD_SEC": "1"}
    system.worker("--flow-resolver", "mixed_tasks:resolve", worker_id="new", tags="new", **environment)
    (Path(system.folder) / "flow.yaml").write_text(FLOW)
    submitting = (
        "import asyncio, json, sys; from pyoco_server import NatsBackendConfig, PyocoNatsClient\n"
        "async def main():\n"
        "    client = await PyocoNatsClient.connect(NatsBackendConfig(nats_url=sys.argv[1]))\n"
        "    ids = [await client.submit_run('byname', {'n': n}, tag='new', tags=['a']) for n in range(3000, 3010)]\n"
        "    await client.close(); print(json.dumps(ids))\n"
        "asyncio.run(main())"
    )
    for n, run_id in enumerate(existing.python(submitting, system.nats_url, folder=system.folder), 3000):
        run = ended(system, run_id)
        assert (run["status"], output(run, "by_name")) == ("COMPLETED", 2 * n), run
    with existing.server(system.nats_url, system.folder) as url:
        until(lambda: _answers(url))
        with httpx2.Client(base_url=url) as http:
            made = [
                http.post("/runs/yaml", files={"workflow": FLOW.encode()}, data={"flow_name": "main", "tag": "new"})
                for _ in range(5)
            ]
            slow = http.post("/runs", json={"flow_name": "byname", "params": {"n": 4, "sec": 60}, "tag": "new"}).json()
            for answer in made:
                assert output(ended(system, answer.json()["run_id"]), "text") == "v=10"
            until(lambda: starts(system.folder)[4])
            assert http.post(f"/runs/{slow['run_id']}/cancel").status_code == 200
            assert ended(system, slow["run_id"])["status"] == "CANCELLED"
            assert http.get(f"/runs/{slow['run_id']}").json()["status"] == "CANCELLED"


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.TransportError:
        return False
