"""The metrics of one gateway: what happened since it started, and the figures of this moment."""

import platform
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pyoco_server import __version__
from pyoco_server.gateway.cardinality import Bounded
from pyoco_server.gateway.connections import Connections, Why
from pyoco_server.gateway.figures import Figures
from pyoco_server.gateway.instant import families, nats_up
from pyoco_server.gateway.letter_reasons import REASONS
from pyoco_server.gateway.records import number
from pyoco_server.model.run import EndReason

_MOST_FLOWS = 100
"""Pairs of flow and tag. Each has a line per bucket, in both histograms."""
_WAIT_BUCKETS = (0.05, 0.25, 1, 5, 15, 60, 300, 1800, 3600, 14400)
_RUN_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 3600, 14400)
_HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_REASONS = {reason.value for reason in EndReason}
_NO_REASON = "other"


class _NatsDown(Collector):
    def collect(self) -> Iterator[Metric]:
        yield nats_up(False)


UNCHECKED = generate_latest(_NatsDown())
"""For a caller whose key nobody can check because NATS is away: what ``/ready`` tells strangers too."""


class Metrics:
    """The instruments, in a registry of their own: several gateways may live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        flow = {**own, "labelnames": ("flow", "tag")}
        self._pairs = Bounded(_MOST_FLOWS)
        self._wait = Histogram(
            "pyoco_run_wait_seconds", "Time from submission to first start, of runs that ended.",
            buckets=_WAIT_BUCKETS, **flow,
        )  # fmt: skip
        self._duration = Histogram(
            "pyoco_run_duration_seconds", "Time from the last start to the end, of runs that ended.",
            buckets=_RUN_BUCKETS, **flow,
        )  # fmt: skip
        self._ends = Counter(
            "pyoco_runs_ended", "Runs that ended since this gateway started, by end reason.",
            labelnames=("end_reason",), **own,
        )  # fmt: skip
        for reason in sorted(_REASONS):
            self._ends.labels(reason)
        self._attempts = Counter("pyoco_attempts", "Starts of the runs that ended.", **own)
        self._lost = Counter(
            "pyoco_attempts_lost", "Attempts of the runs that ended that were lost with their workers.", **own
        )
        self.requests = Counter(
            "pyoco_http_requests", "Requests answered, by route and status.",
            labelnames=("method", "route", "code"), **own,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "pyoco_http_request_duration_seconds", "Time until an answer began.",
            labelnames=("method", "route"), buckets=_HTTP_BUCKETS, **own,
        )  # fmt: skip
        self.open_streams = Gauge(
            "pyoco_http_streams_open", "Event streams that are being sent.", labelnames=("route",), **own
        )
        self._connections_open = Gauge("pyoco_http_connections_open", "Connections of clients that are open.", **own)
        self._connections_limit = Gauge("pyoco_http_connections_limit", "Connections that may be open.", **own)
        ended = Counter(
            "pyoco_http_connections_ended", "Connections that the gateway ended or refused, by reason.",
            labelnames=("reason",), **own,
        )  # fmt: skip
        self._connection_ended = {why: ended.labels(why.value).inc for why in Why}
        letters = Counter(
            "pyoco_dlq_received", "Dead letters that came since this gateway started, by reason.",
            labelnames=("reason",), **own,
        )  # fmt: skip
        self.letter_received = {reason: letters.labels(reason).inc for reason in REASONS}
        """To be called for each dead letter that came, by its reason."""
        self.audit_lost = Counter(
            "pyoco_audit_lost", "Entries of the audit trail that were logged and not stored.", **own
        )
        build = Gauge("pyoco_build_info", "Always 1.", labelnames=("version", "python"), **own)
        build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self._registry)

    def watch_connections(self, connections: Connections) -> None:
        """Show how many connections there are."""
        self._connections_open.set_function(lambda: connections.open)
        self._connections_limit.set(connections.most)

    def connection_ended(self, why: Why) -> None:
        """Take note of a connection that was ended from this side, or refused."""
        self._connection_ended[why]()

    def run_ended(self, item: dict[str, Any]) -> None:
        """Take note of a run's end.

        Args:
            item: The run as lists show it.
        """
        labels = self._pairs.labels(item.get("flow_name"), item.get("tag"))
        for instrument, name in ((self._wait, "queue_wait_ms"), (self._duration, "run_ms")):
            if item.get(name) is not None:
                instrument.labels(*labels).observe(max(0.0, number(item[name])) / 1000)
        reason = item.get("end_reason")
        self._ends.labels(reason if reason in _REASONS else _NO_REASON).inc()
        attempts = max(0, int(number(item.get("attempt"))))
        self._attempts.inc(attempts)
        # The last attempt was lost too if that is what the run ended of, or if it was put back and waited again.
        last_lost = reason == EndReason.WORKER_LOST.value or item.get("worker_id") is None
        self._lost.inc(attempts if last_lost else max(0, attempts - 1))

    def text(self, figures: Figures, *, flows: bool = True) -> bytes:
        """Write everything as Prometheus reads it.

        Args:
            figures: Those of now.
            flows: Whether to tell what carries the names of flows, which are their tenants' alone.
        """
        return generate_latest(_Answer(self._registry, figures, flows=flows))


class _Answer(Collector):
    """The figures of now and the instruments, without the time at which each counter was made: nobody asks for it."""

    def __init__(self, registry: CollectorRegistry, figures: Figures, *, flows: bool) -> None:
        self._registry = registry
        self._figures = figures
        self._flows = flows

    def collect(self) -> Iterator[Metric]:
        # First what the tutorial looks for with `head`.
        yield from families(self._figures)
        for metric in self._registry.collect():
            if not self._flows and any("flow" in sample.labels for sample in metric.samples[:1]):
                continue
            created = f"{metric.name}_created"
            metric.samples = [sample for sample in metric.samples if sample.name != created]
            yield metric
