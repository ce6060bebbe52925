"""What is measured, and what is made of it: metrics, samples, medians, spreads, ratios. Pure."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Metric(msgspec.Struct, frozen=True):
    """A figure that a workload yields.

    Attributes:
        name: in report.json.
        title: in tables.
        unit: of the values; empty for a count a second.
        by_services: whether it depends on how many Services there are.
    """

    name: str
    title: str
    unit: str
    by_services: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric("requests_1", "requests/s, 1 connection", "1/s"),
        Metric("requests_64", "requests/s, 64 connections", "1/s"),
        Metric("requests_512", "requests/s, 512 connections", "1/s"),
        Metric("latency_p50", "latency p50, 64 connections", "ms"),
        Metric("latency_p99", "latency p99, 64 connections", "ms"),
        Metric("latency_p999", "latency p99.9, 64 connections", "ms"),
        Metric("new_connections", "new connections/s", "1/s"),
        Metric("queries", "DNS queries/s", "1/s"),
        Metric("throughput_1", "throughput, 1 stream", "Gbit/s"),
        Metric("throughput_4", "throughput, 4 streams", "Gbit/s"),
        Metric("cpu_user", "CPU a request, user", "us"),
        Metric("cpu_system", "CPU a request, system", "us"),
        Metric("query_user", "CPU a DNS query, user", "us"),
        Metric("query_system", "CPU a DNS query, system", "us"),
        Metric("memory", "memory a connection", "KiB"),
        Metric("datagrams", "UDP answers/s, 64 clients", "1/s"),
        Metric("datagrams_p50", "UDP latency p50", "ms"),
        Metric("datagrams_p99", "UDP latency p99", "ms"),
        Metric("datagrams_cpu", "CPU a UDP answer", "us"),
        Metric("first_answer", "first answer of a new connection", "ms", by_services=True),
        Metric("change", "a new Service works after", "ms", by_services=True),
        Metric("mixed_sync", "first sync of Services of every kind", "s", by_services=True),
        Metric(
            "mixed_answer", "first answer of a new connection, Services of every kind", "ms", by_services=True
        ),
        Metric(
            "mixed_change", "a new external IP works after, Services of every kind", "ms", by_services=True
        ),
        Metric("mixed_memory", "resident memory with Services of every kind", "MiB", by_services=True),
    )
}


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a metric.

    Attributes:
        path: over which it was measured.
        metric: its name.
        value: in the metric's unit.
        round: samples of one round were taken close together, and are compared with each other.
        services: how many there were; 0 where it does not matter.
    """

    path: str
    metric: str
    value: float
    round: int
    services: int = 0


class Spread(msgspec.Struct, frozen=True):
    """The middle of some values and how far they lie apart.

    Attributes:
        median: of all.
        low: the first quartile.
        high: the third quartile.
        count: how many values there were.
    """

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """The median and the quartiles; a single value is all three.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values have no median")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


class Results:
    """Samples, by what one wants to know of them."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._values: dict[tuple[str, str, int], dict[int, list[float]]] = {}
        for each in samples:
            rounds = self._values.setdefault((each.metric, each.path, each.services), {})
            rounds.setdefault(each.round, []).append(each.value)

    def spread(self, metric: str, path: str, services: int = 0) -> Spread | None:
        """Of a metric over a path; None if it was not measured."""
        rounds = self._values.get((metric, path, services))
        return spread([value for values in rounds.values() for value in values]) if rounds else None

    def ratio(self, metric: str, path: str, base: str, services: int = 0) -> float | None:
        """How many times the base's value a path has; None if one of them was not measured.

        It is the median of the ratios within each round, since what else the machine did in a round it did
        to both of them.
        """
        rounds = self._values.get((metric, path, services), {})
        bases = self._values.get((metric, base, services), {})
        pairs = [
            (statistics.median(rounds[each]), statistics.median(bases[each]))
            for each in rounds
            if each in bases
        ]
        ratios = [value / reference for value, reference in pairs if reference > 0]
        return statistics.median(ratios) if ratios else None

    def sizes(self, metric: str) -> list[int]:
        """The numbers of Services that a metric was measured with, in order."""
        return sorted({services for name, _, services in self._values if name == metric})

    def has(self, metric: str) -> bool:
        """Whether it was measured at all."""
        return any(name == metric for name, _, _ in self._values)
