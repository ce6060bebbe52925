"""What a process has counted since it started. The counts of several processes add up. Pure.

A counter is declared here and nowhere else: where it is counted, it is a field; over the processes it is
merged field by field; and `/metrics` takes its name, help and label from the annotation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self, get_args, get_type_hints

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

DURATION_BOUNDS = tuple(0.001 * 2**n for n in range(15))
"""Upper bounds of a histogram's buckets in seconds, 1 ms to 16 s: kube-proxy's, for its dashboards."""

_SYNC = "kubeproxy_sync_proxy_rules_"


class Histogram(msgspec.Struct):
    """How long something took, as often as it happened.

    Attributes:
        counts: by bucket of `DURATION_BOUNDS`, and one more for what took longer.
        total: seconds, of all together.
    """

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DURATION_BOUNDS) + 1))
    total: float = 0.0

    def __post_init__(self) -> None:
        if len(self.counts) != len(DURATION_BOUNDS) + 1:  # told by another version
            raise ValueError(f"a histogram of {len(self.counts)} buckets, not {len(DURATION_BOUNDS) + 1}")

    def observe(self, seconds: float) -> None:
        """Once more, in so many seconds."""
        self.counts[bisect_left(DURATION_BOUNDS, seconds)] += 1
        self.total += seconds

    def merge(self, other: Histogram) -> None:
        """Add what another process has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each upper bound in seconds, and how often it took no longer; the last bound is infinite."""
        return zip((*DURATION_BOUNDS, float("inf")), accumulate(self.counts), strict=True)


class Metric(NamedTuple):
    """How a counter is shown on `/metrics`.

    Attributes:
        help: what it counts.
        label: what the keys of a dictionary are the values of.
        name: without the suffix `_total`; by default that of the field, with `userproxy_` before it.
        per_family: has a label `ip_family`, as kube-proxy has it.
    """

    help: str
    label: str = ""
    name: str = ""
    per_family: bool = False


class Counters(msgspec.Struct, omit_defaults=True, kw_only=True):
    """All that is counted, in a worker or in the control process.

    A field that is a dictionary counts by the values of its label. The name of the metric is the field's with
    `userproxy_` before it, unless the annotation gives one.
    """

    connections_opened: Annotated[int, Metric("Connections accepted.")] = 0
    connections_ended: Annotated[dict[str, int], Metric("Connections over.", label="reason")] = msgspec.field(
        default_factory=Counter
    )
    clients_turned_away: Annotated[int, Metric("Clients with too many connections.")] = 0
    clients_held: Annotated[int, Metric("Clients that waited for a Service to have endpoints.")] = 0
    failed_dials: Annotated[dict[str, int], Metric("Backends that could not be reached.", label="reason")] = (
        msgspec.field(default_factory=Counter)
    )
    retried_dials: Annotated[
        dict[str, int], Metric("Failed dials that were followed by another.", label="reason")
    ] = msgspec.field(default_factory=Counter)
    datagrams_dropped: Annotated[
        dict[str, int], Metric("Datagrams of clients and pods that were not passed on.", label="reason")
    ] = msgspec.field(default_factory=Counter)
    backend_changes: Annotated[
        dict[str, int], Metric("Backends that came to be in this state.", label="state")
    ] = msgspec.field(default_factory=Counter)
    health_checks: Annotated[dict[str, int], Metric("Active checks.", label="outcome")] = msgspec.field(
        default_factory=Counter
    )
    sync_failures: Annotated[int, Metric("How often not everything could be applied.")] = 0
    sync_seconds: Annotated[
        Histogram,
        Metric(
            "How long it took to apply what had changed.",
            name=f"{_SYNC}duration_seconds",
            per_family=True,
        ),
    ] = msgspec.field(default_factory=Histogram)
    service_changes: Annotated[
        int, Metric("Changes of Services.", name=f"{_SYNC}service_changes", per_family=True)
    ] = 0
    endpoint_changes: Annotated[
        int, Metric("Changes of endpoints.", name=f"{_SYNC}endpoint_changes", per_family=True)
    ] = 0
    healthz: Annotated[
        dict[str, int], Metric("Answers of /healthz.", label="code", name="kubeproxy_proxy_healthz")
    ] = msgspec.field(default_factory=Counter)
    livez: Annotated[
        dict[str, int], Metric("Answers of /livez.", label="code", name="kubeproxy_proxy_livez")
    ] = msgspec.field(default_factory=Counter)

    def merge(self, other: Counters) -> None:
        """Add what another process has counted."""
        for field in self.__struct_fields__:
            mine, theirs = getattr(self, field), getattr(other, field)
            if isinstance(mine, Histogram):
                mine.merge(theirs)
            elif isinstance(mine, dict):
                for kind, count in theirs.items():
                    mine[kind] = mine.get(kind, 0) + count
            else:
                setattr(self, field, mine + theirs)

    @classmethod
    def total(cls, *parts: Counters) -> Self:
        """The sum; the parts stay as they are."""
        total = cls()
        for part in parts:
            total.merge(part)
        return total


def metrics() -> dict[str, Metric]:
    """By field of `Counters`, how it is shown."""
    hints = get_type_hints(Counters, include_extras=True)
    return {field: get_args(hints[field])[1] for field in Counters.__struct_fields__}
