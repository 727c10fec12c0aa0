"""The metrics of one gateway: what happened since it started, and the figures of this moment."""

import platform
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pyoco_server import __version__
from pyoco_server.gateway.deadletters.letter_reasons import REASONS
from pyoco_server.gateway.http.connections import Connections, Why
from pyoco_server.gateway.monitoring.figures import Figures
from pyoco_server.gateway.monitoring.gauges import families, nats_up
from pyoco_server.gateway.monitoring.run_metrics import RunMetrics
from pyoco_server.process.supervision import Supervisor

_HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


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
        self.runs = RunMetrics()
        """Those of runs that ended, which are told to each tenant apart."""
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

    def watch_tasks(self, supervisors: Iterable[Supervisor]) -> None:
        """Show how often background tasks have failed, and which of them fail now."""
        self._registry.register(_Tasks(tuple(supervisors)))

    def connection_ended(self, why: Why) -> None:
        """Take note of a connection that was ended from this side, or refused."""
        self._connection_ended[why]()

    def run_ended(self, item: dict[str, Any]) -> None:
        """Take note of a run's end.

        Args:
            item: The run as lists show it.
        """
        self.runs.run_ended(item)

    def text(self, figures: Figures) -> bytes:
        """Write everything as Prometheus reads it.

        Args:
            figures: Those of now; whose they are says whose runs' ends are told, and whether what the gateway has
                done for everybody is told too.
        """
        return generate_latest(_Answer(self, figures))

    def gateways(self) -> Iterator[Metric]:
        """Return what this gateway has done for everybody, without the time at which each counter was made."""
        for metric in self._registry.collect():
            created = f"{metric.name}_created"
            metric.samples = [sample for sample in metric.samples if sample.name != created]
            yield metric


class _Tasks(Collector):
    """The background tasks of a gateway."""

    def __init__(self, supervisors: tuple[Supervisor, ...]) -> None:
        self._supervisors = supervisors

    def collect(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "pyoco_background_task_failures", "Failures of background tasks of this gateway.", labels=("task",)
        )
        failing = GaugeMetricFamily(
            "pyoco_background_task_failing",
            "1 while it has failed and not worked since.",
            labels=("task",),
        )
        for one in (one for supervisor in self._supervisors for one in supervisor.known):
            failures.add_metric((one.name,), one.failures)
            failing.add_metric((one.name,), float(one.is_failing))
        yield from (failures, failing)


class _Answer(Collector):
    """The figures of now and the instruments."""

    def __init__(self, metrics: Metrics, figures: Figures) -> None:
        self._metrics = metrics
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        # First what the tutorial looks for with `head`.
        yield from families(self._figures)
        yield from self._metrics.runs.told(self._figures.tenants)
        if self._figures.tenants is None:
            yield from self._metrics.gateways()
