"""A worker that is killed while it builds leaves nothing that hinders the next one."""

import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import System, running_system
from tests.acceptance.test_processes import within
from tests.acceptance.wheel_uploads import flow_of, outputs, upload
from tests.wheels import make_wheel

pytestmark = pytest.mark.faults

FAST = {
    "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5",
    "PYOCO_CONSUMER_ACK_WAIT_SEC": "3",
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1",
}


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        yield running


def test_a_worker_killed_while_it_builds(system: System, tmp_path) -> None:
    first = system.worker("--wheel-sync", **FAST)
    mark, go = tmp_path / "mark", tmp_path / "go"
    code = (
        f"import os, time\nopen({str(mark)!r}, 'w').close()\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "def hook(registry):\n    registry.register_callable(t, name='n')\ndef t():\n    return 7\n"
    )
    upload(system, make_wheel(tmp_path, "slow-plug", "1", {"slow_plug.py": code}, entry_points={"p": "slow_plug:hook"}))
    run_id = system.client.submit_run_yaml(flow_of("slow_plug:t"), flow_name="main", tag="cpu")["run_id"]
    within(mark.exists)
    first.stop(signal.SIGKILL)
    go.touch()
    system.worker("--wheel-sync", **FAST)
    run = system.end(run_id)  # it was waiting for its wheel, not claimed: it costs no attempt
    assert outputs(run) == [7]
    assert run["attempt"] == 1
    place = system.folder / ".pyoco/wheels"
    assert len(list((place / "envs").iterdir())) == 1
    assert list((place / "building").iterdir()) == []
