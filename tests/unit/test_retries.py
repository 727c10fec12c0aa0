"""Tries of tasks inside the child: on pyoco's real engine, without a worker."""

import functools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyoco.core.models import Flow, RunContext, RunStatus, Task
from pyoco.dsl.syntax import TaskWrapper

from pyoco_server.model.run import EndReason
from pyoco_server.worker.child.tasks import retries
from pyoco_server.worker.child.tasks.coroutines import coroutines_run
from pyoco_server.worker.child.tasks.engine import RunEngine
from pyoco_server.worker.child.tasks.failures import TaskExited, TaskFailed, describe_exception, end_reason
from pyoco_server.worker.child.tasks.reporter import TaskReporter
from pyoco_server.worker.child.tasks.retries import RunStopped, pause_before, supervised, tasks_of


class Run:
    """One run of a flow, and what was told of it."""

    def __init__(self, flow: Flow, cancel_when: Callable[[dict[str, Any]], bool] = lambda _: False) -> None:
        self.told: list[dict[str, Any]] = []
        self.records: dict[str, dict[str, Any]] = {}
        self.context = RunContext()
        self.raised: BaseException | None = None
        self._cancel_when = cancel_when
        self.reporter = TaskReporter(self._send, self.context, 1000, lambda _: None)
        try:
            with coroutines_run(flow), supervised(flow, self.context, self.reporter):
                RunEngine(self.reporter).run(flow, params={"x": 5}, run_context=self.context)
        except BaseException as error:  # noqa: BLE001 - a task may raise SystemExit
            self.raised = error
        self.reporter.close()

    def unread(self) -> list[str]:
        """Return the notices of generators that no task has read."""
        notices: list[str] = []
        self.reporter.tell_unread(notices.append)
        self.reporter.close()
        return notices

    def _send(self, message: dict[str, Any]) -> None:
        self.told.append({"name": message["name"], **message["fields"]})
        self.records.setdefault(message["name"], {}).update(message["fields"])
        if self._cancel_when({"name": message["name"], **message["fields"]}):
            self.context.status = RunStatus.CANCELLING


def flow_of(*tasks: Task) -> Flow:
    flow = Flow("m")
    for task in tasks:
        flow = flow >> TaskWrapper(task)
    return flow


def task(function: Callable[..., Any], name: str = "t", delay: float = 0.0, **options: Any) -> Task:
    made = Task(func=function, name=name, **options)
    made.retry_delay_sec = delay  # type: ignore[attr-defined]
    return made


def failing(times: int) -> Callable[..., int]:
    calls = iter(range(times))

    def t(ctx: Any, x: int = 0) -> int:
        if next(calls, None) is not None:
            raise ValueError("not yet")
        return x

    return t


def bad() -> None:
    raise ValueError("bad")


def test_each_failed_try_is_told_and_the_third_succeeds() -> None:
    run = Run(flow_of(task(failing(2), retries=3)))
    states = [(told["state"], told.get("try"), told.get("retry_at") is not None) for told in run.told]
    assert states[:5] == [
        ("RUNNING", 1, False), ("RUNNING", 1, True), ("RUNNING", 2, False), ("RUNNING", 2, True), ("RUNNING", 3, False),
    ]  # fmt: skip
    record = run.records["t"]
    assert (record["state"], record["try"], record["tries"], record["output"]) == ("SUCCEEDED", 3, 4, 5)
    assert (record["error"], record["exception"], record["traceback"]) == (None, None, None)
    assert record["last_error"] == "ValueError: not yet"
    assert run.context.status is RunStatus.COMPLETED
    waiting = run.told[1]
    assert waiting["exception"]["file"] == __file__
    assert "raise ValueError" in waiting["traceback"]
    assert waiting["traceback"].count("File ") == 1


def test_the_last_try_fails_the_task_with_its_own_error_alone() -> None:
    calls = []

    def t() -> None:
        calls.append(1)
        raise ValueError("bad")

    run = Run(flow_of(task(t, retries=2)))
    assert len(calls) == 3
    assert isinstance(run.raised, TaskFailed)
    assert str(run.raised) == "ValueError: bad"
    assert run.raised.__context__ is None
    assert run.reporter.task_that_raised(run.raised) == "t"
    record = run.records["t"]
    assert (record["state"], record["try"], record["tries"], record["error"]) == ("FAILED", 3, 3, "ValueError: bad")
    assert run.reporter.count_tries("t") == " (in 3 tries)"


def test_a_task_without_retries_says_nothing_of_tries() -> None:
    run = Run(flow_of(task(failing(0))))
    assert "try" not in run.records["t"]
    assert run.reporter.count_tries("t") == ""


def test_a_cancel_ends_the_pause_and_the_task() -> None:
    run = Run(flow_of(task(bad, retries=5, delay=600), task(bad, "after")), lambda told: bool(told.get("retry_at")))
    assert isinstance(run.raised, RunStopped)
    assert (run.records["t"]["state"], run.records["t"]["retry_at"]) == ("CANCELLED", None)
    assert "after" not in run.records


def test_a_failure_elsewhere_ends_the_pause() -> None:
    waiting = threading.Event()

    def slow() -> None:
        assert waiting.wait(10)
        raise KeyError("elsewhere")

    flow = Flow("m")
    for made in (task(bad, "pausing", retries=5, delay=600), task(slow, "slow")):
        flow.add_task(made)
    run = Run(flow, lambda told: bool(told.get("retry_at")) and waiting.set() is not None)
    assert run.reporter.task_that_raised(run.raised or ValueError()) == "slow"
    assert run.records["pausing"]["state"] == "CANCELLED"
    assert run.records["pausing"]["last_error"] == "ValueError: bad"


def test_a_task_that_waited_for_a_thread_does_not_start_in_a_cancelled_run() -> None:
    ran = []
    flow = Flow("m")
    for number in range(12):  # the engine has eight threads
        flow.add_task(task(lambda number=number: ran.append(number) or time.sleep(0.05), f"t{number}"))
    run = Run(flow, lambda told: told["state"] == "SUCCEEDED")
    assert run.context.status in (RunStatus.CANCELLING, RunStatus.CANCELLED)
    assert len(ran) < 12


@pytest.mark.parametrize("raised", [SystemExit(4), KeyboardInterrupt()])
def test_an_exit_is_neither_retried_nor_lost(raised: BaseException) -> None:
    def leave() -> None:
        raise raised

    run = Run(flow_of(task(leave, retries=3)))
    assert isinstance(run.raised, TaskExited)
    assert end_reason(run.raised) is EndReason.TASK_FAILED
    assert run.reporter.task_that_raised(run.raised) == "t"
    assert (run.records["t"]["state"], run.records["t"]["try"]) == ("FAILED", 1)


def test_the_flow_is_given_back_unchanged() -> None:
    made = task(failing(9), retries=1, timeout_sec=3.0, fail_policy="isolate")
    flow = flow_of(made, task(bad, "b"), task(bad, "c"))
    before = [(one.func, one.retries, one.timeout_sec, one.dependencies) for one in tasks_of(flow)]
    for _ in range(2):
        run = Run(flow)
        assert run.records["t"]["tries"] == 2
    assert [(one.func, one.retries, one.timeout_sec, one.dependencies) for one in tasks_of(flow)] == before


def test_a_callable_of_any_kind_keeps_its_signature() -> None:
    class Adder:
        def __call__(self, ctx: Any, x: int) -> int:
            return x + len(ctx.params)

    for function in (Adder(), Adder().__call__, functools.partial(Adder(), x=5)):
        assert Run(flow_of(task(function, retries=1))).records["t"]["output"] == 6


def test_every_round_of_a_loop_counts_from_the_first_try() -> None:
    flow = Flow("m") >> TaskWrapper(task(failing(1), retries=1))[3]
    record = Run(flow).records["t"]
    assert (record["state"], record["try"], record["last_error"]) == ("SUCCEEDED", 1, None)


def test_two_tasks_of_one_name_in_a_program_are_both_supervised() -> None:
    first, second = task(failing(0)), task(failing(1), retries=1)
    flow = Flow("m") >> TaskWrapper(first)[1] >> TaskWrapper(second)[1]
    assert {id(one) for one in tasks_of(flow)} == {id(first), id(second)}
    assert Run(flow).raised is None


def test_pauses_double_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "random", type("R", (), {"uniform": staticmethod(lambda low, _: low)}))
    assert [pause_before(number, 1.0) for number in (2, 3, 4, 7, 8, 5000)] == [1, 2, 4, 32, 60, 60]
    assert pause_before(2, 0.0) == 0


def test_a_task_that_hangs_in_a_late_round_is_seen_running() -> None:
    """Its time limit begins with that message; rounds before it were too quick to be told one by one."""
    running = threading.Event()
    rounds = iter(range(300))

    def t() -> None:
        if next(rounds) == 299:
            assert running.wait(10)

    def listen(told: dict[str, Any]) -> bool:
        (running.set if told["state"] == "RUNNING" else running.clear)()
        return False

    run = Run(Flow("m") >> TaskWrapper(task(t))[300], listen)
    assert run.raised is None
    assert run.records["t"]["state"] == "SUCCEEDED"


class TestIsolation:
    @pytest.mark.parametrize("length", range(2, 8))
    def test_everything_that_waits_for_it_is_passed_over(self, length: int) -> None:
        tasks = [task(bad, "t0", fail_policy="isolate"), *(task(failing(0), f"t{n}") for n in range(1, length))]
        run = Run(flow_of(*tasks))
        assert run.raised is None
        assert (run.context.status, list(run.records)) == (RunStatus.COMPLETED, ["t0"])

    def test_a_task_after_it_that_fails_itself_still_stops_the_run(self) -> None:
        run = Run(flow_of(task(failing(0), "a", fail_policy="isolate"), task(bad, "b"), task(failing(0), "c")))
        assert run.reporter.task_that_raised(run.raised or ValueError()) == "b"

    def test_other_branches_go_on(self) -> None:
        flow = Flow("m")
        a, b, c, d = (
            task(bad, "a", fail_policy="isolate"), task(failing(0), "b"), task(failing(0), "c"), task(failing(0), "d"),
        )  # fmt: skip
        b.dependencies, d.dependencies = {a}, {b, c}
        for made in (a, b, c, d):
            flow.add_task(made)
        run = Run(flow)
        assert run.raised is None
        assert run.records["c"]["state"] == "SUCCEEDED"
        assert set(run.records) == {"a", "c"}


class TestFailures:
    def test_the_place_is_the_users_line_and_not_the_librarys(self) -> None:
        def t() -> None:
            json.loads("{")

        place = Run(flow_of(task(t))).records["t"]["exception"]
        assert (place["class"], place["file"], place["function"]) == ("JSONDecodeError", __file__, "t")

    def test_an_error_of_the_engine_has_no_place(self) -> None:
        made = task(failing(0))
        made.inputs = {"x": "$ctx.params.missing"}
        place = Run(flow_of(made)).records["t"]["exception"]
        assert (place["class"], place["file"], place["line"]) == ("NothingThere", None, None)

    def test_an_exception_that_cannot_be_shown_is_told_all_the_same(self) -> None:
        class Odd(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        assert describe_exception(Odd())["error"] == "Odd: (its message cannot be shown)"

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ModuleNotFoundError("No module named 'x'"), EndReason.DEPENDENCY_MISSING),
            (MemoryError(), EndReason.OUT_OF_MEMORY),
            (ImportError("cannot import name"), EndReason.TASK_FAILED),
            (ValueError(), EndReason.TASK_FAILED),
        ],
    )
    def test_the_end_reason(self, error: BaseException, reason: EndReason) -> None:
        assert end_reason(error) is reason
