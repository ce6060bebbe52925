"""The figures of a record as rows of text, for the terminal and for Markdown alike. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.bench.samples import METRICS, Results

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.bench.report.record import Record
    from userproxy.bench.samples import Metric, Spread

NOTHING = "-"


class Table(msgspec.Struct, frozen=True):
    """A table of one kind of figure.

    Attributes:
        title: what it shows.
        header: of the columns; the first is the path.
        rows: of cells, one for each path.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


_GROUPS = (
    ("Requests a second", ("requests_1", "requests_64", "requests_512")),
    ("Latency in ms, 64 connections", ("latency_p50", "latency_p99", "latency_p999")),
    ("New connections a second", ("new_connections",)),
    ("DNS queries a second, by UDP", ("queries",)),
    ("Throughput in Gbit/s", ("throughput_1", "throughput_4")),
    ("CPU time of the proxy for a request, in microseconds", ("cpu_user", "cpu_system")),
    ("CPU time of the proxy for a DNS query, in microseconds", ("query_user", "query_system")),
    ("UDP answers a second, 64 clients with one question each", ("datagrams",)),
    ("UDP latency in ms, 64 clients", ("datagrams_p50", "datagrams_p99")),
    ("CPU time of the proxy for a UDP answer, in microseconds", ("datagrams_cpu",)),
    ("Memory of the proxy for an open connection, in KiB", ("memory",)),
)
_COLUMNS = {
    "requests_1": "1 connection",
    "requests_64": "64 connections",
    "requests_512": "512 connections",
    "latency_p50": "p50",
    "latency_p99": "p99",
    "latency_p999": "p99.9",
    "new_connections": "64 at a time",
    "queries": "64 clients",
    "throughput_1": "1 stream",
    "throughput_4": "4 streams",
    "cpu_user": "user",
    "cpu_system": "system",
    "query_user": "user",
    "query_system": "system",
    "memory": "resident",
    "datagrams": "answers",
    "datagrams_p50": "p50",
    "datagrams_p99": "p99",
    "datagrams_cpu": "user and system",
}


def tables(record: Record, base: str) -> list[Table]:
    """Every figure of the record, with its spread and its ratio to the base path."""
    results = Results(record.samples)
    found = [_by_workload(record, results, base, title, names) for title, names in _GROUPS]
    found += [_by_size(record, results, base, metric) for metric in METRICS.values() if metric.by_services]
    return [table for table in found if table]


def headline(record: Record, base: str) -> Table | None:
    """One line a path: the ratios that matter most; None if none of them was measured."""
    results = Results(record.samples)
    names = [
        name
        for name in (
            *("requests_1", "requests_64", "requests_512", "latency_p99", "new_connections"),
            *("throughput_1", "throughput_4", "queries", "datagrams", "datagrams_p99", "memory"),
        )
        if results.has(name)
    ]
    if not names:
        return None
    header = ("path", *(_short(name) for name in names))
    rows = [
        (path.title, *(_ratio(results.ratio(name, path.name, base)) for name in names))
        for path in record.paths
    ]
    return Table(f"Relative to {_title(record, base)} (= 1.00)", header, tuple(rows))


def number(value: float) -> str:
    """With as many digits as mean anything: `65,200`, `1.23`, `0.0451`."""
    if not value:
        return "0"
    if value >= 1000:  # noqa: PLR2004 - from here on, three digits are enough
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    if value >= 100:  # noqa: PLR2004 - three digits
        return f"{value:.0f}"
    if value >= 10:  # noqa: PLR2004 - three digits
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def _by_workload(
    record: Record, results: Results, base: str, title: str, names: Iterable[str]
) -> Table | None:
    names = [name for name in names if results.has(name)]
    if not names:
        return None
    return Table(
        title,
        ("path", *(_COLUMNS[name] for name in names)),
        tuple(
            (path.title, *(_cell(results, name, path.name, base, 0) for name in names))
            for path in record.paths
            if any(results.spread(name, path.name) for name in names)
        ),
    )


def _by_size(record: Record, results: Results, base: str, metric: Metric) -> Table | None:
    sizes = results.sizes(metric.name)
    if not sizes:
        return None
    return Table(
        f"{metric.title[0].upper()}{metric.title[1:]}, in {metric.unit}",
        ("path", *(f"{size:,} Service{'s' if size > 1 else ''}" for size in sizes)),
        tuple(
            (path.title, *(_cell(results, metric.name, path.name, base, size) for size in sizes))
            for path in record.paths
            if any(results.spread(metric.name, path.name, size) for size in sizes)
        ),
    )


def _cell(results: Results, metric: str, path: str, base: str, services: int) -> str:
    """As `65,200 (63,900-66,000) x0.98`."""
    found = results.spread(metric, path, services)
    if not found:
        return NOTHING
    text = number(found.median) + _interval(found)
    ratio = results.ratio(metric, path, base, services)
    return text if ratio is None or path == base else f"{text} {_ratio(ratio)}"


def _interval(found: Spread) -> str:
    return f" ({number(found.low)}-{number(found.high)})" if found.count > 1 else ""


def _ratio(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"x{ratio:.2f}"


def _title(record: Record, name: str) -> str:
    return next(path.title for path in record.paths if path.name == name)


def _short(name: str) -> str:
    return METRICS[name].title.replace(" connections", " conns").replace(", 64 conns", "")
