"""What is counted of runs that end: for each tenant apart, and told together or of one tenant alone."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from pyoco_server.gateway.index.json_fields import number
from pyoco_server.gateway.monitoring.cardinality import Bounded
from pyoco_server.model.access import Tenants, tenant_of
from pyoco_server.model.run import EndReason

_MOST_FLOWS = 100
"""Flows and tags that are told apart, over all tenants. Each has a line per bucket, in both histograms."""
_MOST_TENANTS = 100
_OTHERS = "~"
"""Stands for the tenants beyond: no tenant can have this name."""
_TENANT = "tenant"
_WAIT_BUCKETS = (0.05, 0.25, 1, 5, 15, 60, 300, 1800, 3600, 14400)
_RUN_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 3600, 14400)
_REASONS = {reason.value for reason in EndReason}
_NO_REASON = "other"


class RunMetrics:
    """The instruments. Whose a run was is a label that nobody is told: it says what is given to whom."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        flow = {**own, "labelnames": (_TENANT, "flow", "tag")}
        self._flows = Bounded(_MOST_FLOWS)
        self._tenants = {""}
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
            labelnames=(_TENANT, "end_reason"), **own,
        )  # fmt: skip
        self._attempts = Counter("pyoco_attempts", "Starts of the runs that ended.", labelnames=(_TENANT,), **own)
        self._lost = Counter(
            "pyoco_attempts_lost", "Attempts of the runs that ended that were lost with their workers.",
            labelnames=(_TENANT,), **own,
        )  # fmt: skip
        for reason in sorted(_REASONS):
            self._ends.labels("", reason)
        self._attempts.labels("")
        self._lost.labels("")

    def run_ended(self, item: dict[str, Any]) -> None:
        """Take note of a run's end.

        Args:
            item: The run as lists show it.
        """
        tenant = self._tenant(tenant_of(item.get("tenant_id")) or "")
        flow, tag = self._flows.labels(item.get("flow_name"), item.get("tag"), apart=tenant)
        for instrument, name in ((self._wait, "queue_wait_ms"), (self._duration, "run_ms")):
            if item.get(name) is not None:
                instrument.labels(tenant, flow, tag).observe(max(0.0, number(item[name])) / 1000)
        reason = item.get("end_reason")
        self._ends.labels(tenant, reason if reason in _REASONS else _NO_REASON).inc()
        attempts = max(0, int(number(item.get("attempt"))))
        self._attempts.labels(tenant).inc(attempts)
        # The last attempt was lost too if that is what the run ended of, or if it was put back and waited again.
        last_lost = reason == EndReason.WORKER_LOST.value or item.get("worker_id") is None
        self._lost.labels(tenant).inc(attempts if last_lost else max(0, attempts - 1))

    def _tenant(self, name: str) -> str:
        if name not in self._tenants:
            if len(self._tenants) > _MOST_TENANTS:
                return _OTHERS
            self._tenants.add(name)
        return name

    def told(self, tenants: Tenants) -> Iterator[Metric]:
        """Return the metrics of some tenants' runs, added up.

        Args:
            tenants: Whose; ``None``: everybody's.
        """
        names = None if tenants is None else {tenant or "" for tenant in tenants}
        for metric in self._registry.collect():
            sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
            for sample in metric.samples:
                own = names is None or sample.labels[_TENANT] in names
                if sample.name == f"{metric.name}_created" or not (own or "flow" not in sample.labels):
                    continue
                labels = tuple((name, value) for name, value in sample.labels.items() if name != _TENANT)
                # What is not named after flows is there for everybody, also with 0.
                sums[sample.name, labels] = sums.get((sample.name, labels), 0.0) + (sample.value if own else 0.0)
            metric.samples = [Sample(name, dict(labels), value) for (name, labels), value in sums.items()]
            yield metric
