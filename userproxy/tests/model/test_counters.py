"""What processes have counted adds up, passes between them, and is all shown on `/metrics`."""

from __future__ import annotations

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from userproxy.model.counters import DURATION_BOUNDS, Counters, Histogram, metrics
from userproxy.model.rows import SourceStatus
from userproxy.ops.http.metrics import Figures, Metrics

FIELDS = Counters.__struct_fields__
NUMBERS = st.integers(min_value=0, max_value=2**40)
BY_LABEL = st.dictionaries(st.text(string.ascii_lowercase + "-", min_size=1), NUMBERS, max_size=4)
HISTOGRAMS = st.builds(
    Histogram,
    counts=st.lists(NUMBERS, min_size=len(DURATION_BOUNDS) + 1, max_size=len(DURATION_BOUNDS) + 1),
    total=st.integers(min_value=0, max_value=2**20).map(float),
)


def values_of(field: str) -> st.SearchStrategy[object]:
    default = getattr(Counters(), field)
    if isinstance(default, Histogram):
        return HISTOGRAMS
    return BY_LABEL if isinstance(default, dict) else NUMBERS


COUNTERS = st.builds(Counters, **{field: values_of(field) for field in FIELDS})


def packed(*counters: Counters) -> list[bytes]:
    return [msgspec.msgpack.encode(each) for each in counters]


def everything() -> Counters:
    """Every counter with a number of its own."""
    counters = Counters()
    for number, field in enumerate(FIELDS, 1):
        value = getattr(counters, field)
        if isinstance(value, Histogram):
            value.observe(number)
        elif isinstance(value, dict):
            value["some-kind"] = number
        else:
            setattr(counters, field, number)
    return counters


def shown(counters: Counters) -> str:
    """The text that Prometheus scrapes."""
    figures = Figures(
        services=0,
        listeners=0,
        connections=0,
        problems={},
        source=SourceStatus(kind="manifests", synced=True, stale_seconds=0.0),
        counters=counters,
    )
    return Metrics("redirect-to-host", Counters()).render(figures).decode()


@given(COUNTERS, COUNTERS, COUNTERS)
def test_counts_add_up_in_any_order(one: Counters, two: Counters, three: Counters) -> None:
    total = Counters.total(one, two, three)
    assert total == Counters.total(three, Counters.total(two, one))
    for field in FIELDS:
        value, parts = getattr(total, field), [getattr(each, field) for each in (one, two, three)]
        if isinstance(value, Histogram):
            assert sum(value.counts) == sum(sum(part.counts) for part in parts)
        elif isinstance(value, dict):
            assert value == {kind: sum(part.get(kind, 0) for part in parts) for kind in set().union(*parts)}
        else:
            assert value == sum(parts)


@given(COUNTERS, COUNTERS)
def test_a_total_leaves_its_parts_alone_also_when_it_counts_on(one: Counters, two: Counters) -> None:
    before = packed(one, two)
    total = Counters.total(one, two)
    total.merge(everything())
    assert packed(one, two) == before


@given(COUNTERS)
def test_counts_pass_from_process_to_process_as_they_are(counters: Counters) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(counters), type=Counters) == counters


@given(COUNTERS)
def test_what_came_from_another_process_counts_on(counters: Counters) -> None:
    total = Counters.total(msgspec.msgpack.decode(msgspec.msgpack.encode(counters), type=Counters))
    total.connections_ended["never-seen"] += 1
    total.sync_seconds.observe(0.5)
    assert total.connections_ended["never-seen"] == counters.connections_ended.get("never-seen", 0) + 1


def test_a_histogram_of_another_version_is_not_understood_rather_than_added_up_wrongly() -> None:
    with pytest.raises(msgspec.ValidationError, match="a histogram of 3 buckets, not 16"):
        msgspec.convert({"sync_seconds": {"counts": [1, 2, 3], "total": 1.0}}, Counters)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (16.384, 14), (16.4, 15), (1e9, 15)]
)
def test_a_duration_counts_in_the_first_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    histogram = Histogram()
    histogram.observe(seconds)
    assert histogram.counts.index(1) == bucket
    assert [count for _, count in histogram.cumulative()] == [0] * bucket + [1] * (16 - bucket)


def test_every_counter_says_what_it_counts() -> None:
    declared = metrics()
    assert tuple(declared) == FIELDS
    for field, metric in declared.items():
        assert metric.help.endswith("."), field
        assert bool(metric.label) == isinstance(getattr(Counters(), field), dict), field


def test_every_counter_is_shown_once_with_its_value() -> None:
    families = {family.name: family for family in text_string_to_metric_families(shown(everything()))}
    names = [metric.name or f"userproxy_{field}" for field, metric in metrics().items()]
    assert len(set(names)) == len(FIELDS)
    for number, (name, metric) in enumerate(zip(names, metrics().values(), strict=True), 1):
        family = families[name]
        assert family.documentation == metric.help
        expected = {"ip_family": "IPv4"} if metric.per_family else {}
        if family.type == "histogram":
            found = {sample.name.removeprefix(name): sample.value for sample in family.samples}
            assert (found["_count"], found["_sum"]) == (1, number)
            assert family.samples[0].labels == expected | {"le": "0.001"}
            continue
        (sample,) = family.samples
        assert (sample.name, sample.value) == (f"{name}_total", number)
        assert sample.labels == expected | ({metric.label: "some-kind"} if metric.label else {})


def test_no_other_metric_has_the_name_of_a_counter() -> None:
    types = [line.split()[2] for line in shown(everything()).splitlines() if line.startswith("# TYPE")]
    assert len(set(types)) == len(types)
