"""What Prometheus scrapes. Labels have few values, so the size does not grow with the number of Services.

`kubeproxy_*` are kube-proxy's own names, for dashboards and alerts that are there already. Counters are
declared in `userproxy.model.counters`; what has a value of the moment stands here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from userproxy import __version__
from userproxy.model.counters import Counters, Histogram, metrics
from userproxy.model.rows import SourceStatus
from userproxy.model.versioned import dropped, touched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from userproxy.model.service import ServicePortName
    from userproxy.model.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_KUBE_PROXY_SYNC = "kubeproxy_sync_proxy_rules_"
_FAMILY = "IPv4"


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is known elsewhere, at one moment.

    Attributes:
        services: Service ports.
        listeners: that are open.
        connections: live ones.
        waiting: those among them whose Service has no endpoints yet.
        problems: how many there are, by reason.
        source: where the Services come from.
        counters: of all processes of this daemon, those that are gone included.
    """

    services: int
    listeners: int
    connections: int
    waiting: int = 0
    problems: Mapping[str, int]
    source: SourceStatus
    counters: Counters


class Metrics:
    """All metrics of one daemon.

    Args:
        mode: a label of `userproxy_build_info`.
        counters: of the control process; what happens is counted there.
    """

    def __init__(self, mode: str, counters: Counters) -> None:
        self._counters = counters
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._figures = _FiguresCollector()
        self._registry.register(self._figures)
        self._last = self._gauge("last_timestamp_seconds", "When the last change was applied.")
        self._queued = self._gauge("last_queued_timestamp_seconds", "When the last change came in.")
        self._pending_services = self._gauge("service_changes_pending", "Changes of Services to apply.")
        self._pending_endpoints = self._gauge("endpoint_changes_pending", "Changes of endpoints to apply.")
        Gauge("userproxy_build_info", "The daemon.", ["version", "mode"], registry=self._registry).labels(
            __version__, mode
        ).set(1)

    def changed(self, before: Snapshot | None, after: Snapshot) -> None:
        """The desired state has changed."""
        self._queued.set(time.time())
        services = _differences(before.services if before else {}, after.services)
        endpoints = _differences(before.endpoints if before else {}, after.endpoints)
        self._pending_services.inc(services)
        self._pending_endpoints.inc(endpoints)
        self._counters.service_changes += services
        self._counters.endpoint_changes += endpoints

    def applied(self, seconds: float) -> None:
        """The desired state has been applied, in so many seconds."""
        self._counters.sync_seconds.observe(seconds)
        self._last.set(time.time())
        self._pending_services.set(0)
        self._pending_endpoints.set(0)

    def failed(self) -> None:
        """Not everything could be applied."""
        self._counters.sync_failures += 1

    def probed(self, path: str, code: int) -> None:
        """`healthz` or `livez` was answered."""
        answers: dict[str, int] = getattr(self._counters, path)
        answers[str(code)] += 1

    def render(self, figures: Figures) -> bytes:
        """The text that is scraped. Takes milliseconds, so that it belongs in a thread."""
        self._figures.current = figures
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        family = Gauge(f"{_KUBE_PROXY_SYNC}{name}", text, ["ip_family"], registry=self._registry)
        return family.labels(_FAMILY)


class _FiguresCollector(Collector):
    """Gives out what is known elsewhere."""

    def __init__(self) -> None:
        self.current: Figures | None = None

    def collect(self) -> Iterator[Metric]:
        now = self.current
        if now is None:
            return
        for name, text, value in (
            ("services", "Service ports.", now.services),
            ("listeners", "Open listeners.", now.listeners),
            ("connections", "Live connections.", now.connections),
            ("connections_waiting", "Connections whose Service has no endpoints yet.", now.waiting),
            ("source_synced", "Whether everything has been read at least once.", now.source.synced),
            ("source_stale_seconds", "How old the source's data may be.", now.source.stale_seconds),
        ):
            yield GaugeMetricFamily(f"userproxy_{name}", text, float(value))
        problems = GaugeMetricFamily("userproxy_problems", "Problems, as in `status`.", labels=["reason"])
        for reason, count in now.problems.items():
            problems.add_metric([reason], count)
        yield problems
        for field in _METRICS:
            yield _family(field, getattr(now.counters, field))


_METRICS = metrics()


def _family(field: str, value: int | dict[str, int] | Histogram) -> Metric:
    """A counter as Prometheus reads it."""
    shown = _METRICS[field]
    name = shown.name or f"userproxy_{field}"
    labels, values = (["ip_family"], [_FAMILY]) if shown.per_family else ([], [])
    if isinstance(value, Histogram):
        histogram = HistogramMetricFamily(name, shown.help, labels=labels)
        buckets = [
            ("+Inf" if math.isinf(bound) else str(bound), count) for bound, count in value.cumulative()
        ]
        histogram.add_metric(values, buckets, value.total)
        return histogram
    counts = value if isinstance(value, dict) else {"": value}
    if shown.label:
        labels = [*labels, shown.label]
    family = CounterMetricFamily(name, shown.help, labels=labels)
    for kind, count in counts.items():
        family.add_metric([*values, kind] if shown.label else values, count)
    return family


def _differences(before: Mapping[ServicePortName, Any], after: Mapping[ServicePortName, Any]) -> int:
    """How many values differ; those that did not change keep their identity."""
    return len(touched(after, before)) + len(dropped(after, before))
