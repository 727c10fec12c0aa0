"""Whether tasks are confined, what is said where they cannot be, and what doctor makes of it."""

from pathlib import Path

import pytest

from pyoco_server.errors import CommandFailed
from pyoco_server.gateway.monitoring.task_findings import tasks_apart
from pyoco_server.model.findings.finding import FindingCode
from pyoco_server.model.worker import TasksRun, WorkerRecord
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.child.confinement.confinement import Support, support
from pyoco_server.worker.child.confinement.task_user import user_name
from pyoco_server.worker.machine import apart
from pyoco_server.worker.machine.apart import Apart


def decided(monkeypatch: pytest.MonkeyPatch, missing: str = "", **settings: object) -> Apart:
    monkeypatch.setattr(apart, "support", lambda: Support(not missing, missing))
    return Apart.of(Settings(_env_file=None, **settings), Path("/runs"))  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize(
    ("settings", "confined"),
    [
        ({}, False),
        ({"confine_tasks": "on"}, True),
        ({"http_auth_mode": "api_key"}, True),
        ({"http_auth_mode": "api_key", "confine_tasks": "off"}, False),
        ({"run_as": user_name(0)}, True),
        ({"run_as": "0", "confine_tasks": "off"}, False),
    ],
)
def test_when_tasks_are_confined(monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], confined: bool) -> None:
    found = decided(monkeypatch, **settings)
    assert found.confine is confined
    assert found.told().confinement == ("whole" if confined else "off")
    assert found.for_children()["run_as"] == ("root" if "run_as" in settings else None)


def test_an_older_kernel_is_named_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told = decided(monkeypatch, "Linux 5.10 has none", http_auth_mode="api_key").told()
    assert (told.confinement, told.missing) == ("partial", "Linux 5.10 has none")
    assert decided(monkeypatch, "Linux 5.10 has none").told().confinement == "off"
    with pytest.raises(CommandFailed, match="PYOCO_CONFINE_TASKS=on: Linux 5"):
        decided(monkeypatch, "Linux 5.10 has none", confine_tasks="on")


def test_a_user_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no-such-user-here", "4294967294"):
        with pytest.raises(CommandFailed, match=f"--run-as {name}: there is no such user"):
            decided(monkeypatch, run_as=name)


@pytest.mark.parametrize(
    ("abi", "machine_known", "said"),
    [(0, True, "has Landlock switched off, or none"), (4, True, "cannot keep signals in"), (6, False, "no system call"),
     (6, True, ""), (9, True, "")],
)  # fmt: skip
def test_what_a_kernel_lacks(monkeypatch: pytest.MonkeyPatch, abi: int, machine_known: bool, said: str) -> None:
    monkeypatch.setattr("pyoco_server.worker.child.confinement.confinement.landlock_abi", lambda: abi)
    monkeypatch.setattr("pyoco_server.worker.child.confinement.confinement.filter_is_known", lambda: machine_known)
    found = support()
    assert found.whole == (not said)
    assert said in found.missing


OLD = WorkerRecord(worker_id="old", host="h")


def record(**how: object) -> WorkerRecord:
    return WorkerRecord(worker_id="w", host="h", tasks_run=TasksRun(**how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("worker", "codes"),
    [
        (OLD, ["tasks_unconfined"]),
        (record(confinement="off", user="me"), ["tasks_unconfined", "tasks_as_worker"]),
        (record(confinement="whole", user="root", root=True), ["tasks_as_root"]),
        (record(confinement="partial", missing="m", user="me"), ["tasks_half_confined", "tasks_as_worker"]),
        (record(confinement="whole", user="tasks", own_user=True), []),
        (record(confinement="whole", user="me"), ["tasks_as_worker"]),
    ],
)
def test_what_doctor_says(worker: WorkerRecord, codes: list[str]) -> None:
    assert [finding.code for finding in tasks_apart([worker], keys=True)] == [FindingCode(code) for code in codes]
    assert tasks_apart([worker], keys=False) == []
