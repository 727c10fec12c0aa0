"""Why a run is where it is: every code, in both languages, from the facts that lead to it."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.gateway.why.diagnosis import Facts, WhyCode, explain
from pyoco_server.gateway.why.texts import TEXTS, render
from pyoco_server.model.run import EndReason, RunStatus
from pyoco_server.model.text.languages import preferred
from pyoco_server.model.text.sentences import NAME, OPTIONAL, Moment, Share, Size, Span, Text, show
from pyoco_server.model.worker import WorkerRecord, WorkerState, WorkerTrouble
from pyoco_server.store.queue.job_queue import ConsumerFigures

NOW = 1_700_000_000.0  # 22:13:20 UTC
IDLE, GONE = WorkerState.IDLE, WorkerState.DISCONNECTED
CONSUMER = ConsumerFigures(ack_wait_sec=30.0, waiting=1, unacknowledged=0, max_unacknowledged=200)


def worker(worker_id: str = "cpu-1", runs: int = 0, slots: int = 1, seen_ago: float = 2.0) -> WorkerRecord:
    seen = NOW - seen_ago
    return WorkerRecord(
        worker_id=worker_id, instance_id="i1", tags=["cpu"], slots=slots, last_seen_at=seen, last_heartbeat_at=seen,
        current_run_ids=[f"r{number}" for number in range(runs)],
    )  # fmt: skip


FACTS = Facts(
    now=NOW, cancel_grace_sec=30.0, max_attempts=3, default_ack_wait_sec=30.0, nats_url="nats://h:4222",
    consumer=CONSUMER,
)  # fmt: skip
FREE = replace(FACTS, workers=[(worker(), IDLE)])
BUSY = replace(FACTS, workers=[(worker(runs=2, slots=2), WorkerState.RUNNING)], ahead=3)
HELD = replace(FACTS, workers=[(worker(runs=1), IDLE)], holder=(worker(runs=1), WorkerState.RUNNING))
LOST = replace(
    FACTS, workers=[(worker("cpu-2"), IDLE), (worker(seen_ago=25), GONE)], holder=(worker(seen_ago=25), GONE)
)
ALONE = replace(FACTS, workers=[(worker(seen_ago=25), GONE)], holder=(worker(seen_ago=25), GONE))
LEAVING = worker().evolve(draining=True)
FULL_DISK = worker().evolve(
    trouble=WorkerTrouble(kind="state_directory", reason="the disk is full", since=NOW - 60, next_try_at=NOW + 4)
)
HALF = worker(runs=1, slots=2).evolve(trouble=FULL_DISK.trouble)
DRAINING = replace(
    FACTS, workers=[(LEAVING, IDLE), (worker("cpu-2").evolve(draining=True, drain_reason="new kernel"), IDLE)]
)

WAITING: dict[str, Any] = {"run_id": "r1", "tag": "cpu", "status": "PENDING", "submitted_at": NOW - 10}
RUNNING: dict[str, Any] = {
    **WAITING, "status": "RUNNING", "worker_id": "cpu-1", "instance_id": "i1", "start_time": NOW - 60,
    "heartbeat_at": NOW - 60, "updated_at": NOW - 40, "attempt": 1, "max_attempts": 3,
    "task_records": {"a": {"state": "SUCCEEDED"}, "b": {"state": "RUNNING", "retry_at": None}},
}  # fmt: skip
RETRYING = {
    **RUNNING,
    "task_records": {
        "b": {"state": "RUNNING", "retry_at": NOW + 8, "try": 2, "tries": 4, "last_error": "ValueError: no"}
    },
}
CANCELLING = {**RUNNING, "status": "CANCELLING", "cancel_requested_at": NOW - 5, "cancel_reason": "enough"}
FAILED_TASK = {
    "state": "FAILED", "ended_at": NOW - 1, "error": "ValueError: bad", "tries": 3,
    "exception": {"class": "ValueError", "file": "/flows/mine.py", "line": 7},
}  # fmt: skip


def ended(reason: str | None, status: str = "FAILED", error: str | None = "what happened", **more: Any) -> Any:
    end = {"status": status, "end_reason": reason, "end_time": NOW, "error": error, "task_records": {}}
    return {**RUNNING, **end, **more}


CASES: list[tuple[WhyCode, dict[str, Any], Facts, str, str]] = [
    (WhyCode.NO_WORKER, WAITING, replace(FACTS, ahead=2),
     "no worker serves the tag cpu; runs ahead of it: 2.", "ワーカー"),
    (WhyCode.WORKERS_GONE, WAITING, ALONE, "cpu-1 is DISCONNECTED, last seen 25 s ago", "25 秒前"),
    (WhyCode.WORKERS_DRAINING, WAITING, DRAINING,
     "draining and take no more runs (workers: cpu-1, cpu-2); reason: new kernel; runs ahead of it: 0.",
     "理由: new kernel"),
    (WhyCode.WORKERS_DRAINING, WAITING, replace(FACTS, workers=[(LEAVING, IDLE)]),
     "(workers: cpu-1); runs", "停止準備中"),
    (WhyCode.WORKERS_UNFIT, WAITING, replace(FACTS, workers=[(FULL_DISK, IDLE), (LEAVING, IDLE)]),
     "(workers: cpu-1); cpu-1: the disk is full; it tries again at ", "どれもマシンの問題で実行を開始できません"),
    (WhyCode.WORKERS_GONE, WAITING, replace(FACTS, workers=[(FULL_DISK, GONE)]), "cpu-1 is DISCONNECTED", "起動"),
    (WhyCode.STARTING, WAITING, replace(FACTS, workers=[(FULL_DISK, IDLE), (worker("new"), IDLE)]),
     "any moment", "まもなく"),
    (WhyCode.ALL_BUSY, WAITING, replace(FACTS, workers=[(HALF, WorkerState.RUNNING)]), "slots: 2", "スロット: 2"),
    (WhyCode.STARTING, WAITING, replace(DRAINING, workers=[*DRAINING.workers, (worker("new"), IDLE)]),
     "any moment", "まもなく"),
    (WhyCode.WORKERS_GONE, WAITING, replace(FACTS, workers=[(LEAVING, GONE)]), "cpu-1 is DISCONNECTED", "起動"),
    (WhyCode.WORKER_SILENT_NO_OTHER, RUNNING, replace(ALONE, workers=[*ALONE.workers, (LEAVING, IDLE)]),
     "no live worker takes runs", "受け付ける"),
    (WhyCode.ALL_BUSY, WAITING, BUSY, "(workers: 1, slots: 2); runs ahead of it: 3.", "スロット: 2"),
    (WhyCode.QUEUE_LIMIT, WAITING, replace(FREE, consumer=replace(CONSUMER, unacknowledged=200)),
     "while 200", "200 件"),
    (WhyCode.STARTING, WAITING, FREE, "any moment", "まもなく"),
    (WhyCode.JOB_MISSING, {**WAITING, "submitted_at": NOW - 40}, replace(FREE, consumer=None), "after 40 s", "40 秒"),
    (WhyCode.JOB_MISSING, {**WAITING, "submitted_at": NOW - 90}, FREE, "after 1 min 30 s", "1 分 30 秒"),
    (WhyCode.STARTING, {**WAITING, "submitted_at": NOW - 90}, replace(FREE, ahead=1), "any moment", "まもなく"),
    (WhyCode.NOT_FETCHED, {**WAITING, "submitted_at": NOW - 40}, replace(FREE, job_seen=True),
     "nobody fetches", "40 秒"),
    (WhyCode.RUNNING, RUNNING, HELD,
     "for 1 min 0 s on worker cpu-1 (attempt 1 of 3); last sign of life 2.0 s ago; tasks running now: b.", "試行 1/3"),
    (WhyCode.RETRY_WAIT, RETRYING, HELD,
     "Task b waits for its retry until 22:13:28 UTC (in 8.0 s): try 3 of 4; the last one failed: ValueError: no.",
     "4 回中 3 回目"),
    (WhyCode.WORKER_SILENT, RUNNING, LOST,
     "cpu-1 is lost (last sign of life 25 s ago); it is expected to be delivered to another one by 22:13:25 UTC"
     " (in 5.0 s); attempts left: 2.", "残り試行: 2"),
    (WhyCode.WORKER_SILENT_NO_OTHER, RUNNING, ALONE,
     "no live worker takes runs of the tag cpu; attempts left: 2.", "22:13:25"),
    (WhyCode.REDELIVERY_OVERDUE, RUNNING, replace(LOST, holder=(worker(seen_ago=39), GONE)),
     "by 22:13:11 UTC", "でした"),
    (WhyCode.CANCELLING, CANCELLING, HELD, "kills it at 22:13:45 UTC at the latest", "理由: enough"),
    (WhyCode.CANCELLING_WORKER_SILENT, CANCELLING, ALONE, "its worker cpu-1 is lost", "cpu-1 の応答がありません"),
    (WhyCode.COMPLETED, ended("completed", "COMPLETED", None), FACTS,
     "It completed after 1 min 0 s on worker cpu-1.", "完了"),
    (WhyCode.TASK_FAILED, ended("task_failed", error="task 'b' failed: ValueError: bad",
                                task_records={"a": {"state": "FAILED", "ended_at": 1.0}, "b": FAILED_TASK}), FACTS,
     "task 'b' failed: ValueError: bad, at /flows/mine.py:7.", "タスク: b (task 'b' failed: ValueError: bad)"),
    (WhyCode.TASK_TIMEOUT, ended("task_timeout", task_records={"b": {"state": "FAILED"}}), FACTS,
     "what happened", "タスク: b"),
    (WhyCode.RUN_TIMEOUT, ended("run_timeout", timeout_sec=9.5), FACTS, "its timeout_sec of 9.5 s.", "9.5 秒"),
    (WhyCode.CANCELLED,
     ended("cancelled", "CANCELLED", "enough", cancel_reason="enough", cancel_requested_by="ann"), FACTS,
     "It was cancelled while it was running, after 1 min 0 s by ann: enough.", "要求者: ann"),
    (WhyCode.CANCELLED, ended("cancelled", "CANCELLED", None, start_time=None), FACTS,
     "It was cancelled before it started, after waiting 10 s.", "開始前"),
    *[(WhyCode(reason), ended(reason), FACTS, "what happened", "what happened") for reason in (
        "child_exited", "child_killed_by_signal", "out_of_memory", "flow_not_found", "invalid_flow", "invalid_job",
        "dependency_missing", "output_too_large", "record_unreadable",
    )],
    (WhyCode.WORKER_LOST, ended("worker_lost", attempt=3), FACTS, "(3 of 3); last on cpu-1.", "3/3"),
    (WhyCode.ENDED, ended(None), FACTS, "It ended FAILED: what happened", "FAILED"),
    (WhyCode.ENDED, ended("of a newer version"), FACTS, "It ended FAILED", "FAILED"),
    (WhyCode.UNKNOWN_STATUS, {"run_id": "r1", "status": "PENDING_APPROVAL"}, FACTS,
     "PENDING_APPROVAL", "PENDING_APPROVAL"),
    (WhyCode.UNREADABLE, {"run_id": "r1", "status": "RUNNING", "unreadable": "recursion limit exceeded"}, FACTS,
     "Its record cannot be read: recursion limit exceeded; what can be read of it says RUNNING.", "読み取れ"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "snapshot", "facts", "said", "said_ja"), CASES)
def test_each_state_has_its_code_and_sentence(
    code: WhyCode, snapshot: dict[str, Any], facts: Facts, said: str, said_ja: str
) -> None:
    answer = explain(snapshot, facts)
    message, hint = render(answer, "en", NOW)
    japanese, japanese_hint = render(answer, "ja", NOW)
    assert answer.code is code, message
    assert said in message
    assert said_ja in japanese + japanese_hint
    for text in (message, hint, japanese, japanese_hint):
        assert text
        assert not re.search(r"[\[\]{}?]", text), "a value was missing"
    assert answer.details()["run_id"] == "r1"


@pytest.mark.parametrize(
    ("wheel_sync", "said", "detail"),
    [
        ({"enabled": False}, "Worker cpu-1 does not use uploaded wheels", "wheels_off"),
        (
            {"enabled": True, "installed_wheels": []},
            "No uploaded wheel serves the tags of its worker (cpu)",
            "wheels_none",
        ),
        (
            {"enabled": True, "last_error": "a-1.whl: bad"},
            "Wheels of worker cpu-1 cannot be used: a-1.whl",
            "wheels_error",
        ),
        ({"enabled": True, "installed_wheels": [{"wheel_name": "b-1.whl"}, 7]}, "It has the wheels b-1.whl.", "wheels"),
        ({"enabled": True, "installed_wheels": 7}, "No uploaded wheel serves", "wheels_none"),
    ],
)
def test_a_missing_module_is_seen_beside_the_workers_wheels(wheel_sync: Any, said: str, detail: str) -> None:
    facts = replace(FACTS, holder=(worker().evolve(wheel_sync=wheel_sync), IDLE))
    answer = explain(ended("dependency_missing"), facts)
    assert said in render(answer, "en", NOW)[1]
    assert detail in answer.details()
    assert render(answer, "ja", NOW)[1] != render(explain(ended("dependency_missing"), FACTS), "ja", NOW)[1]
    assert detail not in explain(ended("task_failed"), facts).details()


def test_every_code_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(WhyCode)


@pytest.mark.parametrize("reason", EndReason)
def test_every_end_reason_is_a_code(reason: EndReason) -> None:
    snapshot = ended(reason.value, "COMPLETED" if reason is EndReason.COMPLETED else "FAILED")
    assert explain(snapshot, FACTS).code.value == reason.value


@pytest.mark.parametrize("status", RunStatus)
def test_every_status_is_known(status: RunStatus) -> None:
    assert explain({**ended(None), "status": status.value}, HELD).code is not WhyCode.UNKNOWN_STATUS


@pytest.mark.parametrize("code", WhyCode)
def test_every_code_has_both_languages_with_the_same_commands(code: WhyCode) -> None:
    text = TEXTS[code]
    assert all(text)
    assert text.ja != text.en
    assert re.search("[ぁ-んァ-ン]", text.ja)
    assert re.search("[ぁ-んァ-ン]", text.ja_hint) or ":" in text.ja_hint

    def commands(hint: str) -> list[str]:
        return re.findall(r"pyoco-\w+ \w+", hint)

    assert sorted(commands(text.en_hint)) == sorted(commands(text.ja_hint))


def test_a_run_that_its_worker_dropped_for_another_process_is_lost() -> None:
    """The same name, but another process: nobody has the run."""
    anew = worker(runs=0).evolve(instance_id="i2")
    answer = explain(RUNNING, replace(HELD, workers=[(anew, IDLE)], holder=(anew, IDLE)))
    assert answer.code is WhyCode.REDELIVERY_OVERDUE
    assert answer.details()["expected_by"] == NOW - 40 + 30


def test_a_task_that_runs_beside_one_that_waits_is_told_first() -> None:
    both = {**RETRYING, "task_records": {**RETRYING["task_records"], "c": {"state": "RUNNING"}}}
    answer = explain(both, HELD)
    assert answer.code is WhyCode.RUNNING
    assert (answer.values["tasks"], answer.values["retrying"]) == (["c"], ["b"])


def test_the_real_ack_wait_of_the_consumer_counts() -> None:
    slow = replace(LOST, consumer=replace(CONSUMER, ack_wait_sec=300.0))
    assert explain(RUNNING, slow).values["expected_by"] == NOW - 25 + 300


def test_details_are_plain_numbers_and_say_nothing_of_what_is_not_known() -> None:
    details = explain(RUNNING, LOST).details()
    assert type(details["expected_by"]) is float
    assert details["attempts_left"] == 2
    assert None not in details.values()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Span(0.04), "0.0 s"), (Span(59.7), "1 min 0 s"), (Span(3_725), "1 h 2 min"), (Span(200_000), "2 d 7 h"),
        (Moment(NOW - 86_400), "2023-11-13 22:13 UTC"), (Moment(NOW), "22:13:20 UTC"), (["a", "b"], "a, b"), (0, "0"),
        (Share(0.934), "93%"), (Size(1_500_000), "1.4 MiB"), (Size(5 * 2**30), "5.0 GiB"),
    ],
)  # fmt: skip
def test_values_as_people_read_them(value: Any, shown: str) -> None:
    assert show(value, "en", NOW) == shown


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(sorted({*RUNNING, *ended(None), "timeout_sec", "cancel_requested_at", "retry_at"}))


@given(
    status=st.sampled_from([*(status.value for status in RunStatus), "ODD"]) | ODD,
    fields=st.dictionaries(KEYS, ODD, max_size=8),
    record=st.dictionaries(st.sampled_from(["state", "retry_at", "try", "tries", "exception", "ended_at"]), ODD),
    facts=st.sampled_from([FACTS, FREE, BUSY, HELD, LOST, ALONE]),
)
def test_no_record_of_another_program_is_too_odd(
    status: Any, fields: dict[str, Any], record: dict[str, Any], facts: Facts
) -> None:
    records = {"t": {**record, "state": "RUNNING"}, "u": {**record, "state": "FAILED"}, "v": 7}
    for snapshot in ({**fields, "status": status}, {**fields, "status": status, "task_records": records}):
        answer = explain(snapshot, facts)
        for language in ("en", "ja"):
            assert render(answer, language, NOW)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"), ("ja", "ja"), ("ja-JP,en;q=0.8", "ja"), ("en;q=0.5, ja;q=0.9", "ja"), ("fr, de", "en"),
        ("en-US,ja", "en"), ("ja;q=0", "en"), ("ja;q=x", "en"), ("fr;q=1,ja;q=0.1", "ja"),
    ],
)  # fmt: skip
def test_the_language_that_a_browser_asks_for(header: str, language: str) -> None:
    assert preferred(header) == language


def test_brackets_and_names_are_well_formed() -> None:
    for code, text in TEXTS.items():
        assert isinstance(text, Text)
        for part in text:
            rest = NAME.sub("", OPTIONAL.sub("", part))
            assert not re.search(r"[\[\]{}]", rest), code
