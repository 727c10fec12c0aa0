"""The figures of this moment as Prometheus's gauges."""

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from pyoco_server.gateway.monitoring.figures import Figures
from pyoco_server.model.worker import GpuFigures, WorkerRecord

# Some are gauges although their names end in _total: the names are the contract's, and what retention removes is
# no longer counted.


def nats_up(up: bool) -> Metric:
    """Give the gauge that says whether NATS answers."""
    return _one("pyoco_nats_up", "1 if NATS and its JetStream answer.", up)


def families(figures: Figures) -> Iterator[Metric]:
    """Return the gauges: those of NATS only where it answered, and for tenants what is theirs and what all share."""
    everybodys = figures.tenants is None
    alive = sum(count for state, count in figures.workers.items() if state.is_active)
    yield _one("pyoco_workers_alive_total", "Workers that are there: RUNNING or IDLE.", alive)
    yield _by("status", "pyoco_runs_total", "Runs in the store, by status.", figures.runs)
    yield _by("status", "pyoco_runs_today_total", "Runs last changed today, by status.", figures.runs_today)
    if figures.dead_letters is not None:
        yield _one("pyoco_dlq_messages_total", "Dead letters in their stream.", figures.dead_letters)
    if figures.letters is not None:
        yield _by("reason", "pyoco_dlq_letters", "Dead letters in their stream, by reason.", figures.letters)
    yield _one("pyoco_workers_unfit", "Workers that are there and take no runs: their machines cannot begin any.",
               figures.workers_unfit)  # fmt: skip
    states = {state.value: count for state, count in figures.workers.items()}
    yield _by("state", "pyoco_workers", "Known workers, by state.", states)
    yield from _workers(figures)
    yield from _tags(figures)
    yield from _nats(figures)
    yield _one(
        "pyoco_index_caught_up", "1 while the index of runs has seen all that is stored.", figures.index_caught_up
    )
    if everybodys:
        yield _one("pyoco_logs_open", "Logs that are being sent.", figures.open_logs)


def _workers(figures: Figures) -> Iterator[Metric]:
    live = figures.live_workers
    slots = {name: record.slots for name, record in live.items()}
    yield _by("worker", "pyoco_worker_slots", "Runs that the worker takes at a time.", slots)
    in_use = {name: record.slots_in_use for name, record in live.items()}
    yield _by("worker", "pyoco_worker_slots_in_use", "Runs that the worker has.", in_use)
    unfit = {name: record.unfit_slots for name, record in live.items()}
    yield _by("worker", "pyoco_worker_slots_unfit", "Slots that take no runs: its machine cannot begin any.", unfit)
    memory = {name: record.memory_bytes for name, record in live.items() if record.memory_bytes is not None}
    yield _by("worker", "pyoco_worker_memory_bytes", "Resident memory of the worker and its runs.", memory)
    cores = {name: record.cpu_percent / 100 for name, record in live.items() if record.cpu_percent is not None}
    yield _by("worker", "pyoco_worker_cpu_cores", "Cores that the worker and its runs keep busy.", cores)
    yield from _gpus(live)
    yield _one("pyoco_workers_left_out", "Live workers that are not shown one by one.", figures.workers_left_out)


def _gpus(live: Mapping[str, WorkerRecord]) -> Iterator[Metric]:
    def by_gpu(name: str, text: str, value: Callable[[GpuFigures], float | None]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["worker", "gpu"])
        for worker, record in live.items():
            for index, figure in {gpu.index: value(gpu) for gpu in record.gpus}.items():
                if figure is not None:
                    family.add_metric([worker, str(index)], float(figure))
        return family

    yield by_gpu(
        "pyoco_worker_gpu_memory_used_bytes", "Memory in use of a GPU of the worker's machine.",
        lambda gpu: gpu.memory_used_bytes,
    )  # fmt: skip
    yield by_gpu("pyoco_worker_gpu_memory_total_bytes", "Memory that it has.", lambda gpu: gpu.memory_total_bytes)
    yield by_gpu(
        "pyoco_worker_gpu_utilization_ratio", "Part of the time in which it computes.",
        lambda gpu: None if gpu.utilization_percent is None else gpu.utilization_percent / 100,
    )  # fmt: skip


def _tags(figures: Figures) -> Iterator[Metric]:
    now = time.time()
    tags = figures.tags
    waiting = {tag: one.waiting for tag, one in tags.items()}
    yield _by("tag", "pyoco_runs_waiting", "Runs that wait for a worker (PENDING).", waiting)
    ages = {tag: max(0.0, now - one.oldest) if one.oldest is not None else 0.0 for tag, one in tags.items()}
    yield _by("tag", "pyoco_oldest_waiting_seconds", "Age of the oldest waiting run; 0 if none waits.", ages)
    serving = {tag: one.workers for tag, one in tags.items()}
    yield _by("tag", "pyoco_workers_serving", "Live workers that serve the tag.", serving)
    yield _one("pyoco_tags_left_out", "Tags that runs wait for and that are not shown.", figures.tags_left_out)


def _nats(figures: Figures) -> Iterator[Metric]:
    nats = figures.nats
    yield nats_up(nats.up)
    if figures.store_used_share is not None:
        yield _one("pyoco_store_used_share", "How full NATS is; 1 is full.", figures.store_used_share)
    yield _one("pyoco_submissions_accepted", "0 while the store is nearly full.", figures.accepts_submissions)
    if nats.records is not None:
        lag = max(0, nats.records.last_seq - figures.index_reached)
        yield _one("pyoco_index_lag", "Changes of runs that the index has not seen yet.", lag)
    if not nats.up or figures.tenants is not None:  # queues are all tenants' together
        return
    # Until a worker has made a tag's consumer, its queue is what waits.
    depth = {tag: one.waiting for tag, one in figures.tags.items()}
    depth |= {tag: one.waiting for tag, one in nats.consumers.items()}
    yield _by("tag", "pyoco_queue_depth", "Jobs that were not delivered yet.", depth)
    flying = {tag: one.unacknowledged for tag, one in nats.consumers.items()}
    yield _by("tag", "pyoco_queue_in_flight", "Jobs that were delivered and are not acknowledged.", flying)
    again = {tag: one.redelivered for tag, one in nats.consumers.items()}
    yield _by("tag", "pyoco_queue_redelivered", "Jobs in flight that were delivered more than once.", again)


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _by(label: str, name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family
