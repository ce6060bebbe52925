"""What stands in docs/ and scripts/deploy/ of metrics is what the code has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from userproxy.model.counters import Counters
from userproxy.model.figures import Figures, Moments
from userproxy.model.metric import declared
from userproxy.ops.http.reference import names, renewed

ROOT = Path(__file__).parents[4]
METRICS, ALERTS = ROOT / "docs" / "metrics.md", ROOT / "docs" / "alerts.md"
RULES = ROOT / "scripts" / "deploy" / "prometheus-rules.yaml"
DASHBOARD = ROOT / "scripts" / "deploy" / "grafana-dashboard.json"

# What every client of Prometheus has, and what Prometheus itself adds.
OF_OTHERS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
WORDS_OF_PROMQL = {
    *("and", "or", "by", "without", "sum", "max", "rate", "increase", "topk", "vector"),
    "histogram_quantile",
}


def alerts() -> list[dict[str, str]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def dashboard_queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def named_in(expression: str) -> set[str]:
    """The metrics of a query."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|(?:by|without) \([^)]*\)", "", expression)
    return set(re.findall(r"[a-z][a-z0-9_]*", bare)) - WORDS_OF_PROMQL


def labels_in(expression: str) -> dict[str, set[tuple[str, str]]]:
    """By metric, the values that it is asked for, each behind its label, `label=`."""
    chosen = re.findall(r"([a-z0-9_]+)\{([^}]*)\}", expression)
    return {name: set(re.findall(r'(\w+=)"([^"]*)"', labels)) for name, labels in chosen}


def test_the_reference_is_current() -> None:
    page = METRICS.read_text()
    assert renewed(page) == page, "scripts/docs renews it"


def test_the_reference_has_every_metric_once() -> None:
    page = METRICS.read_text()
    for struct in (Counters, Figures, Moments):
        for one in declared(struct):
            rows = re.findall(rf"^\| `{one.name}(?:_total)?` \|", page, re.MULTILINE)
            assert len(rows) == 1, one.name


@pytest.mark.parametrize("expression", [alert["expr"] for alert in alerts()] + dashboard_queries())
def test_what_is_asked_for_is_there(expression: str) -> None:
    asked = named_in(expression)
    assert asked
    assert asked <= names().keys() | OF_OTHERS


@pytest.mark.parametrize("expression", [alert["expr"] for alert in alerts()] + dashboard_queries())
def test_values_of_labels_that_are_asked_for_exist(expression: str) -> None:
    keys = {
        f"{one.name}{suffix}": set(one.metric.keys)
        for struct in (Counters, Figures)
        for one in declared(struct)
        if len(one.metric.labels) == 1
        for suffix in ("", "_total")
    }
    for name, chosen in labels_in(expression).items():
        for label, value in chosen:
            assert label in ("instance=", "job=") or value in keys[name]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    name = str(alert["alert"])
    assert alert["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"
    assert f"\n## {name}\n" in ALERTS.read_text()
    assert alert["annotations"]["description"] in ALERTS.read_text()
    assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_no_paragraph_is_about_an_alert_that_is_not_there() -> None:
    headings = re.findall(r"^## (\w+)$", ALERTS.read_text(), re.MULTILINE)
    assert headings == [alert["alert"] for alert in alerts()]
