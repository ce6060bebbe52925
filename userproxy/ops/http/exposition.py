"""Declared metrics as Prometheus' library has them: one family for each field of the structs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from userproxy.model.counters import Counters
from userproxy.model.metric import BETWEEN, NANOSECONDS, declared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import msgspec
    from prometheus_client.metrics_core import Metric as Family

    from userproxy.model.metric import Declared, Histogram


class Exposition(Collector):
    """Gives out the fields of some structs.

    Args:
        per_service: those of single Services too.

    Attributes:
        shown: the structs.
        families: of addresses, of which there are series from the start.
    """

    def __init__(self, *, per_service: bool) -> None:
        self.shown: tuple[msgspec.Struct, ...] = ()
        self.families: tuple[str, ...] = ()
        self._per_service = per_service

    def collect(self) -> Iterator[Family]:
        """Of `Collector`."""
        for struct in self.shown:
            counted = isinstance(struct, Counters)
            for one in declared(type(struct)):
                if self._per_service or not one.metric.per_service:
                    yield _family(one, self._by_key(one, getattr(struct, one.field)), counted=counted)

    def _by_key(self, one: Declared, value: Any) -> Mapping[str, Any]:  # noqa: ANN401 - of any field
        if one.is_plain:
            return {"": value}
        nothing = one.histogram() if one.histogram else 0
        return {**dict.fromkeys(one.keys(self.families), nothing), **value}


def _family(one: Declared, by_key: Mapping[str, Any], *, counted: bool) -> Family:
    name, text, labels = one.name, one.metric.help, one.metric.labels
    values = {key: key.split(BETWEEN) if labels else [] for key in by_key}
    if one.histogram is not None:
        histogram = HistogramMetricFamily(name, text, labels=labels)
        for key, value in by_key.items():
            histogram.add_metric(values[key], _buckets(value), value.total / NANOSECONDS)
        return histogram
    otherwise = UnknownMetricFamily if one.metric.untyped else GaugeMetricFamily
    kind = CounterMetricFamily if counted else otherwise
    family = kind(name, text, labels=labels)
    unit = NANOSECONDS if one.metric.nanoseconds else 1
    for key, value in by_key.items():
        family.add_metric(values[key], value / unit)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    return [
        ("+Inf" if math.isinf(bound) else str(bound), float(count)) for bound, count in histogram.cumulative()
    ]
