"""What a gateway counts, and how many different labels it may get; no server."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pyoco_server.gateway.index.totals import WaitingTag
from pyoco_server.gateway.monitoring.cardinality import Bounded
from pyoco_server.gateway.monitoring.figures import MOST_WORKERS, Figures, NatsFigures, TagFigures, _live, tag_figures
from pyoco_server.gateway.monitoring.metrics import Metrics
from pyoco_server.model.run import EndReason, RunStatus
from pyoco_server.model.worker import GpuFigures, WorkerRecord, WorkerState, WorkerTrouble
from pyoco_server.store.queue.job_queue import ConsumerFigures
from pyoco_server.store.topology import StreamFigures

RUNS = dict.fromkeys([*(status.value for status in RunStatus), "other"], 0)
CONSUMER = ConsumerFigures(ack_wait_sec=30, waiting=3, unacknowledged=2, max_unacknowledged=200, redelivered=1)
FULL = Figures(
    runs_today={"FAILED": 1},
    runs={**RUNS, "COMPLETED": 5},
    workers={**dict.fromkeys(WorkerState, 0), WorkerState.IDLE: 2, WorkerState.RUNNING: 1, WorkerState.DISCONNECTED: 4},
    live_workers={
        "w1": WorkerRecord(
            worker_id="w1",
            slots=4,
            slots_in_use=3,
            memory_bytes=5 << 20,
            cpu_percent=250.0,
            gpus=[
                GpuFigures(index=0, memory_used_bytes=7, memory_total_bytes=9, utilization_percent=40),
                GpuFigures(index=1, name="it tells nothing"),
            ],
        ),
        "w2": WorkerRecord(worker_id="w2", trouble=WorkerTrouble(kind="process", reason="no process", since=1.0)),
    },
    workers_unfit=1,
    workers_left_out=0,
    tags={"cpu": TagFigures(3, 1.0, 2), "gpu": TagFigures(0, None, 0)},
    tags_left_out=0,
    nats=NatsFigures(True, StreamFigures(5, 120), StreamFigures(7, 9), {"cpu": CONSUMER}),
    index_caught_up=True,
    index_reached=100,
    open_logs=0,
    store_used_share=0.25,
    letters={"execution_error": 7, "invalid_job": 0},
)


def read(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Give every sample by name and labels, as Prometheus would read it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def one(samples: Any, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def ended(**fields: Any) -> dict[str, Any]:
    return {
        "flow_name": "main", "tag": "cpu", "status": "COMPLETED", "end_reason": "completed", "attempt": 1,
        "worker_id": "w", "queue_wait_ms": 300.0, "run_ms": 2000.0, **fields,
    }  # fmt: skip


def test_the_contracts_names_stand_first() -> None:
    lines = Metrics().text(FULL).decode().splitlines()
    head = lines[:10]  # what the tutorial looks at
    assert {"# TYPE pyoco_workers_alive_total gauge", "# TYPE pyoco_runs_total gauge"} <= set(head)
    assert {"pyoco_workers_alive_total 3.0", 'pyoco_runs_total{status="COMPLETED"} 5.0'} <= set(head)
    assert "pyoco_dlq_messages_total 7.0" in lines
    assert not [line for line in lines if "_created" in line or "_total_total" in line]


def test_figures_of_now() -> None:
    samples = read(Metrics().text(FULL))
    assert one(samples, "pyoco_queue_depth", tag="cpu") == 3
    assert one(samples, "pyoco_queue_depth", tag="gpu") == 0
    assert one(samples, "pyoco_queue_in_flight", tag="cpu") == 2
    assert one(samples, "pyoco_queue_redelivered", tag="cpu") == 1
    assert one(samples, "pyoco_workers_serving", tag="cpu") == 2
    assert (one(samples, "pyoco_oldest_waiting_seconds", tag="cpu") or 0) > 1e9
    assert one(samples, "pyoco_oldest_waiting_seconds", tag="gpu") == 0
    assert one(samples, "pyoco_dlq_letters", reason="execution_error") == 7
    assert one(samples, "pyoco_dlq_letters", reason="invalid_job") == 0
    assert one(samples, "pyoco_dlq_received_total", reason="attempts_exhausted") == 0
    assert one(samples, "pyoco_index_lag") == 20
    assert one(samples, "pyoco_nats_up") == 1


def test_workers_one_by_one() -> None:
    samples = read(Metrics().text(FULL))
    assert one(samples, "pyoco_worker_slots", worker="w1") == 4
    assert one(samples, "pyoco_worker_slots_in_use", worker="w1") == 3
    assert one(samples, "pyoco_worker_memory_bytes", worker="w1") == 5 << 20
    assert one(samples, "pyoco_worker_cpu_cores", worker="w1") == 2.5
    assert one(samples, "pyoco_worker_slots", worker="w2") == 1
    assert one(samples, "pyoco_workers_unfit") == 1
    unfit = [one(samples, "pyoco_worker_slots_unfit", worker=name) for name in ("w1", "w2")]
    assert unfit == [0, 1]
    assert one(samples, "pyoco_worker_memory_bytes", worker="w2") is None  # it does not tell
    gpus = {(name, labels): value for (name, labels), value in samples.items() if "_gpu_" in name}
    labels = (("gpu", "0"), ("worker", "w1"))
    assert gpus == {
        ("pyoco_worker_gpu_memory_used_bytes", labels): 7,
        ("pyoco_worker_gpu_memory_total_bytes", labels): 9,
        ("pyoco_worker_gpu_utilization_ratio", labels): 0.4,
    }


def test_workers_are_bounded() -> None:
    crowd = [(WorkerRecord(worker_id=f"w{number:04}"), WorkerState.IDLE) for number in range(MOST_WORKERS + 5)]
    gone = [(WorkerRecord(worker_id=f"a{number}"), WorkerState.DISCONNECTED) for number in range(50)]
    shown, left_out = _live([*gone, *reversed(crowd)])
    assert (next(iter(shown)), len(shown), left_out) == ("w0000", MOST_WORKERS, 5)


def test_two_gateways_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.run_ended(ended())
    assert one(read(first.text(FULL)), "pyoco_runs_ended_total", end_reason="completed") == 1
    assert one(read(second.text(FULL)), "pyoco_runs_ended_total", end_reason="completed") == 0


def test_every_end_reason_is_there_from_the_start() -> None:
    samples = read(Metrics().text(FULL))
    assert all(one(samples, "pyoco_runs_ended_total", end_reason=reason.value) == 0 for reason in EndReason)


def test_a_runs_end() -> None:
    metrics = Metrics()
    metrics.run_ended(ended())
    metrics.run_ended(ended(attempt=3, end_reason="worker_lost"))
    metrics.run_ended(ended(attempt=2))
    metrics.run_ended(ended(attempt=1, worker_id=None, end_reason="cancelled"))  # put back, then cancelled
    metrics.run_ended(ended(attempt=0, worker_id=None, end_reason="cancelled", queue_wait_ms=None, run_ms=None))
    samples = read(metrics.text(FULL))
    pair = {"flow": "main", "tag": "cpu"}
    assert one(samples, "pyoco_run_wait_seconds_count", **pair) == 4
    assert one(samples, "pyoco_run_duration_seconds_sum", **pair) == 8
    assert one(samples, "pyoco_run_duration_seconds_bucket", le="1.0", **pair) == 0
    assert one(samples, "pyoco_run_duration_seconds_bucket", le="5.0", **pair) == 4
    assert one(samples, "pyoco_attempts_total") == 7
    assert one(samples, "pyoco_attempts_lost_total") == 3 + 1 + 1
    assert one(samples, "pyoco_runs_ended_total", end_reason="cancelled") == 2


def test_ends_of_other_programs_break_nothing() -> None:
    metrics = Metrics()
    for odd in (
        {}, {"flow_name": 5, "tag": ["a"]}, {"end_reason": "boredom", "attempt": "x", "run_ms": "long"},
        {"attempt": -4, "run_ms": -1, "queue_wait_ms": 1e400}, {"flow_name": "a\nb\"c\\", "tag": "\ud800"},
        {"flow_name": "x" * 100_000},
    ):  # fmt: skip
        metrics.run_ended({**ended(), **odd} if odd else {})
    samples = read(metrics.text(FULL))
    assert one(samples, "pyoco_runs_ended_total", end_reason="other") == 2
    assert max(len(value) for _, labels in samples for _, value in labels) <= 200


def test_flow_names_are_bounded() -> None:
    metrics = Metrics()
    for number in range(5000):
        metrics.run_ended(ended(flow_name=f"flow-{number}", tag=f"tag-{number % 7}"))
    samples = read(metrics.text(FULL))
    pairs = {labels for name, labels in samples if name == "pyoco_run_duration_seconds_count"}
    assert len(pairs) == 101
    assert one(samples, "pyoco_run_duration_seconds_count", flow="other", tag="other") == 4900
    assert one(samples, "pyoco_run_duration_seconds_count", flow="flow-3", tag="tag-3") == 1


def test_the_bound_lets_the_known_through() -> None:
    bounded = Bounded(2)
    assert bounded.labels("a", "x") == ("a", "x")
    assert bounded.labels("a", None) == ("a", "other")
    assert bounded.labels("b", "x") == ("other", "other")
    assert bounded.labels("a", "x") == ("a", "x")


def test_which_tags_are_shown() -> None:
    here = WorkerRecord(worker_id="w1", tags=["cpu", "not.a.tag"])
    gone = WorkerRecord(worker_id="w2", tags=["gpu", "cpu"])
    draining = WorkerRecord(worker_id="w3", tags=["cpu"], draining=True)
    workers = [(here, WorkerState.IDLE), (gone, WorkerState.DISCONNECTED), (draining, WorkerState.RUNNING)]
    waiting = [WaitingTag("many", 9, 2.0), WaitingTag("gpu", 1, None), WaitingTag("with space", 5, 1.0)]
    assert tag_figures(workers, waiting) == {
        "cpu": TagFigures(0, None, 1),
        "many": TagFigures(9, 2.0, 0),
        "gpu": TagFigures(1, None, 0),
    }
    crowd = [WaitingTag(f"t{number}", 1, 1.0) for number in range(300)]
    shown = tag_figures(workers, crowd)
    assert len(shown) == 100 and "cpu" in shown and "gpu" not in shown
    farm = [(WorkerRecord(worker_id=f"w{n}", tags=[f"s{n:03}"]), WorkerState.IDLE) for n in range(150)]
    shown = tag_figures(farm, [WaitingTag("s149", 7, 1.0), WaitingTag("nobody", 1, 1.0)])
    assert len(shown) == 100 and shown["nobody"] == TagFigures(1, 1.0, 0) and "s000" in shown and "s149" not in shown
