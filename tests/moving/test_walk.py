"""The way of docs/how-to/moving.md on a store of the real 0.5.1: look, back up, side by side, and back again."""

import asyncio
import json
import tarfile
from pathlib import Path
from typing import Any

import httpx2
import nats
import pytest

from pyoco_server.settings.existing import _of_file_theirs
from tests.wheels import wheel_members, wheel_name, write_wheel

from . import ours
from .existing import Existing
from .populated import FLOW, Populated, asking, ended, run_by_them, submit_yaml, until

pytestmark = pytest.mark.moving
RESOLVER = """\
from pyoco.core.models import Flow, Task

def report():
    return "said by name"

def resolve(name):
    if name != "report":
        raise KeyError(name)
    flow = Flow(name=name)
    flow.add_task(Task(func=report, name="report"))
    return flow
"""


def everything(nats_url: str) -> dict[str, Any]:
    """What NATS says of all streams."""

    async def ask() -> dict[str, Any]:
        client = await nats.connect(nats_url)
        try:
            names = [str(info.config.name) for info in await client.jetstream().streams_info()]
            told = {name: json.loads((await client.request(f"$JS.API.STREAM.INFO.{name}")).data) for name in names}
            return {
                name: {key: value for key, value in info.items() if key in ("config", "state", "created")}
                for name, info in told.items()
            }
        finally:
            await client.close()

    return asyncio.run(ask())


def test_a_look_changes_nothing(made: Populated, tmp_path: Path) -> None:
    before = everything(made.url)
    done = ours.run("pyoco-server", "check", "--moving", "--nats-url", made.url, "--output", "json", folder=tmp_path)
    after = everything(made.url)
    for streams in (before, after):  # what is left of their worker may expire between the two
        streams.pop("KV_pyoco_workers")
    for name, stream in after.items():  # what their server has left goes by itself; ours adds none
        assert stream["state"].pop("consumer_count") <= before[name]["state"].pop("consumer_count")
    assert after == before
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    found = {one["code"]: one["details"] for one in told["findings"]}
    assert told["store"] == "existing"
    assert found["runs_held"]["counts"] == ["CANCELLING 1", "COMPLETED 6", "FAILED 1", "PENDING 4"]
    assert found["jobs_queued"] == {"jobs": 5, "tags": ["later 5"]}
    assert found["jobs_unfit"]["runs"] == [made.queued[2]]
    assert found["jobs_by_name"]["flows"] == ["report"]
    assert (found["existing_keys"]["usable"], found["existing_keys"]["revoked"]) == (2, 1)
    assert found["wheels_held"] == {"wheels": 2}
    assert found["kept_as_it_is"] == {"letters": 1, "events": 2}
    for tenant, key in made.keys.items():
        assert key["api_key"].split(".")[1] not in done.stdout, tenant


def test_workers_that_are_alive_are_told(existing: Existing, nats_alone: str, tmp_path: Path) -> None:
    told: dict[str, Any] = {}

    def look() -> bool:
        done = ours.run(
            "pyoco-server", "check", "--moving", "--nats-url", nats_alone, "--output", "json", folder=tmp_path
        )
        told.update({one["code"]: one for one in json.loads(done.stdout)["findings"]})
        return "workers_of_existing_system" in told

    arguments = ["--nats-url", nats_alone, "--tags", "cpu,gpu", "--worker-id", "old-1"]
    with existing.running("pyoco-worker", *arguments, folder=tmp_path):
        until(look, "the worker")
    assert told["workers_of_existing_system"]["details"] == {"who": ["old-1"], "tags": ["cpu", "gpu"]}


def test_it_moves_in(made: Populated, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(RESOLVER)
    done = ours.run("pyoco-server", "backup", "--nats-url", made.url, "before.tar", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "before.tar") as archive:
        assert "manifest.json" in archive.getnames()
    with ours.gateway(made.url, tmp_path) as url, asking(url) as http:
        until(lambda: http.get("/ready").is_success, "our gateway")
        all_is_there(http, made)
        with ours.worker(made.url, "later", tmp_path, "--flow-resolver", "flows.py:resolve"):
            queued_jobs_run(http, made)


def test_side_by_side_and_back_again(made: Populated, existing: Existing, tmp_path: Path) -> None:
    with ours.gateway(made.url, tmp_path) as url, asking(url) as http:
        until(lambda: http.get("/ready").is_success, "our gateway")
        with ours.worker(made.url, "later,now", tmp_path):
            assert result(ended(http, made.queued[0])) == "v=2"
            ran = [their_gateway_takes(existing, made.url, tmp_path)]
        run_id = submit_yaml(http, FLOW.replace("x: 1", "x: 9"), "now")
        [there] = run_by_them(existing, made.url, tmp_path, http, [run_id])
        assert (there["worker_id"], result(there)) == ("theirs", "v=10")
        left = submit_yaml(http, FLOW.replace("x: 1", "x: 20"), "now")  # nobody takes it before we leave
        ran += [there["run_id"], left]
        name = wheel_name("task-cpu", "0.3.0")
        wheel = write_wheel(tmp_path / name, wheel_members("task-cpu", "0.3.0"))
        assert http.post("/wheels", files={"wheel": (name, wheel.read_bytes())}).is_success

    with existing.server(made.url, tmp_path) as url, asking(url) as http:
        told = {one["run_id"]: one for one in http.get("/runs", params={"limit": 200}).json()}
        assert {*made.finished, *made.queued, made.cancelled, *ran} == set(told)
        assert result(http.get(f"/runs/{made.queued[0]}/tasks").json()) == "v=2"
        assert told[made.queued[2]]["status"] == "FAILED" and told[made.cancelled]["status"] == "CANCELLED"
        assert [one["name"] for one in http.get("/wheels").json()] == [*made.wheels, name]
        assert http.get("/wheels/history").json()[0]["wheel_name"] == name
        run_id = submit_yaml(http, FLOW, "now")
        told_by_them = run_by_them(existing, made.url, tmp_path, http, [left, run_id])
        assert [result(run) for run in told_by_them] == ["v=21", "v=2"]


def all_is_there(http: httpx2.Client, made: Populated) -> None:
    """All that the existing system stored is shown by our gateway."""
    told = {one["run_id"]: one for one in http.get("/runs", params={"limit": 200}).json()}
    assert set(told) == {*made.finished, *made.queued, made.cancelled}
    for run_id, status in made.finished.items():
        run = http.get(f"/runs/{run_id}", params={"include": "records"}).json()
        assert run["status"] == status
        assert status == "FAILED" or result(run) == "v=2"
    assert [one["name"] for one in http.get("/wheels").json()] == made.wheels
    assert len(http.get("/wheels/history").json()) == 2
    assert len(http.get("/dlq").json()) == 1


def queued_jobs_run(http: httpx2.Client, made: Populated) -> None:
    """What waited runs on our worker, with its params; what it refuses says why."""
    assert [result(ended(http, run_id)) for run_id in made.queued[:2]] == ["v=2", "v=2"]
    refused = ended(http, made.queued[2])
    assert refused["status"] == "FAILED" and "version" in refused["error"]
    by_name = ended(http, made.queued[3])
    assert by_name["status"] == "COMPLETED" and by_name["params"] == {"n": 3}
    assert ended(http, made.cancelled)["status"] == "CANCELLED"


def their_gateway_takes(existing: Existing, nats_url: str, folder: Path) -> str:
    """A run that their gateway takes runs on our worker; return it."""
    with existing.server(nats_url, folder) as url, asking(url) as http:
        run = ended(http, submit_yaml(http, FLOW.replace("x: 1", "x: 4"), "later"))
        assert (run["status"], run["worker_id"], result(run)) == ("COMPLETED", "ours", "v=5")
        return str(run["run_id"])


def result(told: dict[str, Any]) -> Any:
    """What the flow's last task gave."""
    return told["task_records"]["to_text"]["output"]


def test_what_it_reads_in_a_env_file(existing: Existing, tmp_path: Path) -> None:
    lines = [
        "A='x${HOME}y'", 'B="x${HOME}y"', "C=x$HOME", "D='a' # c", "E=a#b", "F=a #b", 'H="a\\nb"', "I='a\\nb'",
        "J=it's", "export K = 1 ", "# L=1", "M", "N=", 'O="', "2P=x", "Q==x", 'R="\\x"',
    ]  # fmt: skip
    (tmp_path / ".env").write_text("\n".join(lines))
    asked = "import json; from pyoco_server.config import _read_dotenv_values; print(json.dumps(_read_dotenv_values()))"
    assert _of_file_theirs(tmp_path / ".env") == existing.python(asked, folder=tmp_path)


def test_old_keys_are_known(made: Populated, tmp_path: Path) -> None:
    with ours.gateway(made.url, tmp_path, PYOCO_HTTP_AUTH_MODE="api_key") as url, asking(url) as http:
        until(lambda: http.get("/ready").is_success, "our gateway")
        answers = {
            tenant: http.get("/whoami", headers={"X-API-Key": key["api_key"]}).status_code
            for tenant, key in made.keys.items()
        }
        assert answers == {"demo": 200, "other": 200, "gone": 403}
    listed = ours.run("pyoco-server-admin", "--nats-url", made.url, "api-key", "list", folder=tmp_path)
    assert {one["tenant_id"] for one in json.loads(listed.stdout)} == {"demo", "other", "gone"}
