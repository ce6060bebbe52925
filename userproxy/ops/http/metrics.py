"""What Prometheus scrapes. Labels have few values, so the size does not grow with the number of Services.

`kubeproxy_*` are kube-proxy's own names, for dashboards and alerts that are there already.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from userproxy import __version__
from userproxy.model.rows import SourceStatus
from userproxy.model.versioned import dropped, touched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from userproxy.model.service import ServicePortName
    from userproxy.model.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FAMILY = "IPv4"
_DURATIONS = tuple(0.001 * 2**n for n in range(15))  # kube-proxy's: 1 ms to 16 s


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted elsewhere, at one moment.

    Attributes:
        services: Service ports.
        listeners: that are open.
        connections: live ones.
        ended: connections that are over, by reason.
        failed_dials: backends that could not be reached, by kind.
        retried_dials: those of them that were followed by another attempt, by kind.
        changes: how often a backend has become `up`, `down` and `ejected`.
        checks: active checks, `passed` and `failed`.
        turned_away: clients that were reset at once, having as many connections as one may.
        problems: how many there are, by reason.
        source: where the Services come from.
    """

    services: int
    listeners: int
    connections: int
    ended: Mapping[str, int]
    problems: Mapping[str, int]
    source: SourceStatus
    failed_dials: Mapping[str, int] = {}
    retried_dials: Mapping[str, int] = {}
    changes: Mapping[str, int] = {}
    checks: Mapping[str, int] = {}
    turned_away: int = 0


class Metrics:
    """All metrics of one daemon."""

    def __init__(self, mode: str) -> None:
        """Begin with zeros; mode is a label of `userproxy_build_info`."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._figures = _FiguresCollector()
        self._registry.register(self._figures)
        self._duration = Histogram(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "How long it took to carry out what had changed.",
            ["ip_family"],
            buckets=_DURATIONS,
            registry=self._registry,
        ).labels(_FAMILY)
        self._last = self._gauge("last_timestamp_seconds", "When the last change was carried out.")
        self._queued = self._gauge("last_queued_timestamp_seconds", "When the last change came in.")
        self._failures = Counter(
            "userproxy_sync_failures",
            "How often not everything could be carried out.",
            registry=self._registry,
        )
        self._pending = {
            "service": self._gauge("service_changes_pending", "Changes of Services to carry out."),
            "endpoint": self._gauge("endpoint_changes_pending", "Changes of endpoints to carry out."),
        }
        self._changes = {
            "service": self._counter("service_changes", "Changes of Services."),
            "endpoint": self._counter("endpoint_changes", "Changes of endpoints."),
        }
        self._probes = {
            path: Counter(
                f"kubeproxy_proxy_{path}", f"Answers of /{path}.", ["code"], registry=self._registry
            )
            for path in ("healthz", "livez")
        }
        Gauge("userproxy_build_info", "The daemon.", ["version", "mode"], registry=self._registry).labels(
            __version__, mode
        ).set(1)

    def changed(self, before: Snapshot | None, after: Snapshot) -> None:
        """The desired state has changed."""
        self._queued.set(time.time())
        for kind, count in (
            ("service", _differences(before.services if before else {}, after.services)),
            ("endpoint", _differences(before.endpoints if before else {}, after.endpoints)),
        ):
            self._pending[kind].inc(count)
            self._changes[kind].inc(count)

    def carried_out(self, seconds: float) -> None:
        """The desired state has been carried out, in so many seconds."""
        self._duration.observe(seconds)
        self._last.set(time.time())
        for gauge in self._pending.values():
            gauge.set(0)

    def failed(self) -> None:
        """Not everything could be carried out."""
        self._failures.inc()

    def probed(self, path: str, code: int) -> None:
        """`/healthz` or `/livez` was answered."""
        self._probes[path].labels(code).inc()

    def render(self, figures: Figures) -> bytes:
        """The text that is scraped. Takes milliseconds, so that it belongs in a thread."""
        self._figures.current = figures
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        family = Gauge(f"kubeproxy_sync_proxy_rules_{name}", text, ["ip_family"], registry=self._registry)
        return family.labels(_FAMILY)

    def _counter(self, name: str, text: str) -> Counter:
        family = Counter(f"kubeproxy_sync_proxy_rules_{name}", text, ["ip_family"], registry=self._registry)
        return family.labels(_FAMILY)


class _FiguresCollector(Collector):
    """Gives out what is counted elsewhere."""

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
            ("source_synced", "Whether everything has been read at least once.", now.source.synced),
            ("source_stale_seconds", "How old the source's news may be.", now.source.stale_seconds),
        ):
            yield GaugeMetricFamily(f"userproxy_{name}", text, float(value))
        for counter, meaning, label, counts in (
            ("connections_ended", "Connections over.", "reason", now.ended),
            ("failed_dials", "Backends that could not be reached.", "reason", now.failed_dials),
            ("retried_dials", "Failed dials that were followed by another.", "reason", now.retried_dials),
            ("backend_changes", "Backends that came to be in this state.", "state", now.changes),
            ("health_checks", "Active checks.", "outcome", now.checks),
        ):
            family = CounterMetricFamily(f"userproxy_{counter}", meaning, labels=[label])
            for kind, count in counts.items():
                family.add_metric([kind], count)
            yield family
        yield CounterMetricFamily(
            "userproxy_clients_turned_away", "Clients with too many connections.", now.turned_away
        )
        problems = GaugeMetricFamily("userproxy_problems", "Problems, as in `status`.", labels=["reason"])
        for reason, count in now.problems.items():
            problems.add_metric([reason], count)
        yield problems


def _differences(before: Mapping[ServicePortName, Any], after: Mapping[ServicePortName, Any]) -> int:
    """How many values differ; those that did not change keep their identity."""
    return len(touched(after, before)) + len(dropped(after, before))
