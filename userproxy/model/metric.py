"""How what is counted and measured is declared: a field of a struct, with a `Metric` in its annotation. Pure.

`/metrics` and docs/metrics.md are made from these declarations.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, NamedTuple, get_args, get_type_hints

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BETWEEN = " "
"""Between the values of a key's labels, where there are several."""

FAMILY = "ip_family"
"""kube-proxy's label, `IPv4` or `IPv6`: of each there is a series from the start that the node carries."""


NANOSECONDS = 1_000_000_000
"""In a second."""


class Metric(NamedTuple):
    """How a field is shown.

    Attributes:
        help: what it counts or measures.
        labels: what the keys of a dictionary are the values of, with `BETWEEN` between them.
        name: without the suffix `_total`; by default that of the field, with `userproxy_` before it.
        keys: those that are there from the start, at 0: of a closed set all of them.
        untyped: it is no counter and yet has the name of one, for kube-proxy's sake.
        per_service: there is one only for the Services that are shown by themselves.
        nanoseconds: what it is counted in, though seconds are shown: see `Histogram.total`.
    """

    help: str
    labels: tuple[str, ...] = ()
    name: str = ""
    keys: tuple[str, ...] = ()
    untyped: bool = False
    per_service: bool = False
    nanoseconds: bool = False


class Histogram(msgspec.Struct):
    """How long something took, as often as it happened.

    Attributes:
        counts: by bucket of `BOUNDS`, and one more for what took longer.
        total: of all together, in nanoseconds: whole numbers give the same sum in any order of the processes,
            where another order of fractions may make it less than before, which no counter must be.
    """

    BOUNDS: ClassVar[tuple[float, ...]] = tuple(0.001 * 2**n for n in range(15))
    """Upper bounds of the buckets in seconds, 1 ms to 16 s: kube-proxy's, for its dashboards."""

    counts: list[int] = msgspec.field(default_factory=list)
    total: int = 0

    def __post_init__(self) -> None:
        buckets = len(self.BOUNDS) + 1
        if not self.counts:
            self.counts = [0] * buckets
        elif len(self.counts) != buckets:  # told by another version
            raise ValueError(f"a histogram of {len(self.counts)} buckets, not {buckets}")

    def observe(self, seconds: float) -> None:
        """Once more, in so many seconds."""
        self.counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.total += round(seconds * NANOSECONDS)

    def merge(self, other: Histogram) -> None:
        """Add what another process has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each upper bound in seconds, and how often it took no longer; the last bound is infinite."""
        return zip((*self.BOUNDS, float("inf")), accumulate(self.counts), strict=True)


class DialSeconds(Histogram):
    """Of connecting to a pod: from one on this node to one that a lost SYN kept waiting."""

    BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class ProgrammingSeconds(Histogram):
    """Of bringing a change of endpoints to the node, with kube-proxy's buckets."""

    BOUNDS = (
        *(0.25, 0.5),
        *(float(n) for n in range(1, 61)),
        *(float(n) for n in range(65, 120, 5)),
        *(float(n) for n in range(120, 301, 30)),
    )


class RequestSeconds(Histogram):
    """Of a request to the API server, with the buckets of Kubernetes' clients."""

    BOUNDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class Declared(NamedTuple):
    """A field that is shown.

    Attributes:
        field: its name.
        metric: how it is shown.
        name: of the metric, without the suffix `_total` of counters.
        histogram: the kind of its values, where they are such.
    """

    field: str
    metric: Metric
    name: str
    histogram: type[Histogram] | None

    @property
    def is_plain(self) -> bool:
        """Whether it has one value, and no labels."""
        return not self.metric.labels

    def keys(self, families: Sequence[str]) -> tuple[str, ...]:
        """Those that are there from the start, on a node that carries these families of addresses."""
        labels, keys = self.metric.labels, self.metric.keys
        if FAMILY not in labels:
            return keys
        rest = keys if len(labels) > 1 else ("",)
        return tuple(f"{family}{BETWEEN}{each}" if each else family for family in families for each in rest)


@functools.cache
def declared(of: type[msgspec.Struct]) -> tuple[Declared, ...]:
    """The fields of a struct that are shown."""
    hints = get_type_hints(of, include_extras=True)
    found = []
    for field in of.__struct_fields__:
        kind, *notes = get_args(hints[field]) or (None,)
        for metric in notes:
            if isinstance(metric, Metric):
                values = (get_args(kind) or (kind,))[-1]
                histogram = values if isinstance(values, type) and issubclass(values, Histogram) else None
                found.append(Declared(field, metric, metric.name or f"userproxy_{field}", histogram))
    return tuple(found)
