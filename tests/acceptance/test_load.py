"""Many runs at once, many in a row, and reads in between."""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from pyoco_server.client.http import PyocoHttpClient

from .conftest import TUTORIAL, System, running_system

CLIENTS, RUNS = 32, 1000


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("load")) as running:
        running.worker(worker_id="only")
        yield running


@pytest.mark.slow
def test_300_tiny_runs_in_a_row_without_a_stall(system: System) -> None:
    for number in range(300):
        run = system.run(TUTORIAL, params={"x": number})
        assert run["task_records"]["to_text"]["output"] == f"v={number + 1}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_1000_runs_of_32_clients_end_exactly_once_while_others_read(system: System) -> None:
    known = {run["run_id"] for run in pages(system)}

    def submit(client_number: int) -> dict[str, int]:
        with PyocoHttpClient(system.url, timeout=60) as client:
            numbers = range(client_number, RUNS, CLIENTS)
            return {
                client.submit_run_yaml(TUTORIAL, flow_name="load", tag="cpu", params={"x": number})["run_id"]: number
                for number in numbers
            }

    def read(seed: int) -> Counter[int]:
        choice, codes = random.Random(seed), Counter[int]()
        with httpx2.Client(base_url=system.url, timeout=60) as http:
            for _ in range(250):
                path = choice.choice(["/runs", "/runs?cursor=", "/runs?tag=cpu&status=RUNNING", "/workers", "/ready"])
                codes[http.get(path).status_code] += 1
        return codes

    with ThreadPoolExecutor(CLIENTS + 8) as pool:
        readers = [pool.submit(read, seed) for seed in range(8)]
        submitted = {run_id: n for part in pool.map(submit, range(CLIENTS)) for run_id, n in part.items()}
        codes = sum((reader.result() for reader in readers), Counter[int]())
    assert codes == {200: 2000}
    assert len(submitted) == RUNS
    for run_id, number in submitted.items():
        run = system.end(run_id, timeout=300)
        assert (run["status"], run["attempt"], run["worker_id"]) == ("COMPLETED", 1, "only")
        assert run["task_records"]["to_text"]["output"] == f"v={number + 1}"
    found = [run["run_id"] for run in pages(system)]
    assert len(found) == len(set(found))
    assert set(found) - known == set(submitted)


def pages(system: System) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        page = system.client.list_runs_vnext(limit=70, cursor=cursor)
        yield from page["items"]
        cursor = page["next_cursor"]
        if not cursor:
            return
