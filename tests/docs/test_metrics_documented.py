"""The dashboard, the alert rules and the documentation name metrics that are exported, and all of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyoco_server.gateway.monitoring.metrics import Metrics
from tests.unit.test_metrics import FULL, ended

DOCS = Path(__file__).parents[2] / "docs"
SPEC = (DOCS / "spec.md").read_text()
RULES = [rule for group in yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text())
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "counter": ("",)}


def exported() -> dict[str, set[str]]:
    """Give the names that can be asked for, and the labels of each."""
    metrics = Metrics()
    metrics.run_ended(ended())
    metrics.requests.labels("GET", "/runs", "200").inc()
    metrics.request_seconds.labels("GET", "/runs").observe(1)
    metrics.open_streams.labels("/runs").inc()
    text = metrics.text(FULL).decode()
    types = re.findall(r"^# TYPE (pyoco_\w+) (\w+)$", text, re.MULTILINE)
    labels: dict[str, set[str]] = {name + suffix: set() for name, kind in types for suffix in _SUFFIXES[kind]}
    for name, inside in re.findall(r"^(pyoco_\w+)\{(.*)\} ", text, re.MULTILINE):
        labels[name] |= set(re.findall(r'(\w+)="', inside))
    return labels


EXPORTED = exported()
PANELS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
ASKED = [*((rule["alert"], rule["expr"]) for rule in RULES), *PANELS]


@pytest.mark.parametrize(("title", "query"), ASKED)
def test_what_is_asked_for_is_exported(title: str, query: str) -> None:
    names = re.findall(r"pyoco_\w+", query)
    assert names and set(names) <= set(EXPORTED), title
    words = {word for inside in re.findall(r"(?:by|on) \(([^)]*)\)", query) for word in inside.split(", ")}
    words |= set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', query))
    known = set().union(*(EXPORTED[name] for name in names)) | {"instance"}
    assert words <= known, title
    assert query.count("(") == query.count(")")


def test_the_rules_have_what_prometheus_wants() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 6
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]
        shown = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
        kept = re.search(r"by \(([^)]*)\)", rule["expr"])
        assert set(shown) <= set(kept.group(1).split(", ") if kept else []), rule["alert"]


def test_the_dashboard_is_one() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert DASHBOARD["title"] and DASHBOARD["schemaVersion"] >= 30
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)


@pytest.mark.parametrize("name", sorted({re.sub(r"_(bucket|sum|count)$", "", name) for name in EXPORTED}))
def test_every_metric_is_documented(name: str) -> None:
    assert f"`{name}" in SPEC.split("## Metrics")[1].split("\n## ")[0]
