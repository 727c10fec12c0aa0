"""The figures of this moment as Prometheus's gauges."""

import time
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from pyoco_server.gateway.figures import Figures

# Some are gauges although their names end in _total: the names are the contract's, and what retention removes is
# no longer counted.


def families(figures: Figures) -> Iterator[Metric]:
    """Give the gauges; those of NATS only where it answered."""
    alive = sum(count for state, count in figures.workers.items() if state.is_active)
    yield _one("pyoco_workers_alive_total", "Workers that are there: RUNNING or IDLE.", alive)
    yield _by("status", "pyoco_runs_total", "Runs in the store, by status.", figures.runs)
    if figures.nats.letters is not None:
        yield _one("pyoco_dlq_messages_total", "Dead letters in their stream.", figures.nats.letters.messages)
    states = {state.value: count for state, count in figures.workers.items()}
    yield _by("state", "pyoco_workers", "Known workers, by state.", states)
    yield from _tags(figures)
    yield from _nats(figures)
    yield _one(
        "pyoco_index_caught_up", "1 while the index of runs has seen all that is stored.", figures.index_caught_up
    )
    yield _one("pyoco_logs_open", "Logs that are being sent.", figures.open_logs)


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
    yield _one("pyoco_nats_up", "1 if NATS and its JetStream answer.", nats.up)
    if nats.records is not None:
        lag = max(0, nats.records.last_seq - figures.index_reached)
        yield _one("pyoco_index_lag", "Changes of runs that the index has not seen yet.", lag)
    if not nats.up:
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
