"""What processes have counted adds up, passes between them, and is all shown on `/metrics`."""

from __future__ import annotations

import re
import string
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import userproxy
from userproxy.model.counters import Counters
from userproxy.model.figures import Figures, Moments
from userproxy.model.metric import BETWEEN, FAMILY, NANOSECONDS, Declared, Histogram, declared
from userproxy.model.records import DIAL_ERRORS, GIVEN_UP
from userproxy.ops.http.metrics import Metrics

FIELDS = Counters.__struct_fields__
DECLARED = {one.field: one for one in declared(Counters)}
NUMBERS = st.integers(min_value=0, max_value=2**40)
LABELS = st.text(string.ascii_lowercase + "-", min_size=1, max_size=4)


def histograms(kind: type[Histogram]) -> st.SearchStrategy[Histogram]:
    buckets = len(kind.BOUNDS) + 1
    return st.builds(
        kind,
        counts=st.lists(NUMBERS, min_size=buckets, max_size=buckets),
        total=NUMBERS,
    )


def values_of(one: Declared) -> st.SearchStrategy[object]:
    values: st.SearchStrategy[object] = histograms(one.histogram) if one.histogram else NUMBERS
    return values if one.is_plain else st.dictionaries(LABELS, values, max_size=2)


COUNTERS = st.builds(Counters, **{field: values_of(one) for field, one in DECLARED.items()})


def packed(*counters: Counters) -> list[bytes]:
    return [msgspec.msgpack.encode(each) for each in counters]


def everything() -> Counters:
    """Every counter with a number of its own, under labels that nobody else has."""
    counters = Counters()
    for number, one in enumerate(DECLARED.values(), 1):
        value: object = number
        if one.histogram is not None:
            value = one.histogram()
            value.observe(number)
        setattr(counters, one.field, value if one.is_plain else {key_of(one): value})
    return counters


def key_of(one: Declared) -> str:
    return BETWEEN.join(f"some-{label}" for label in one.metric.labels)


def shown(counters: Counters, *, per_service: bool = True) -> str:
    """The text that Prometheus scrapes."""
    metrics = Metrics("redirect-to-host", Counters(), per_service=per_service)
    return metrics.render(Figures(), counters).decode()


@given(COUNTERS, COUNTERS, COUNTERS)
def test_counts_add_up_in_any_order(one: Counters, two: Counters, three: Counters) -> None:
    total = Counters.total(one, two, three)
    assert total == Counters.total(three, Counters.total(two, one))
    for field in FIELDS:
        value, parts = getattr(total, field), [getattr(each, field) for each in (one, two, three)]
        if isinstance(value, dict):
            assert value.keys() == set().union(*parts)
            for key, sum_of_key in value.items():
                check_sum(sum_of_key, [part[key] for part in parts if key in part])
        else:
            check_sum(value, parts)


def check_sum(total: object, parts: list[object]) -> None:
    if isinstance(total, Histogram):
        for number, count in enumerate(total.counts):
            assert count == sum(part.counts[number] for part in parts if isinstance(part, Histogram))
    else:
        assert total == sum(parts)  # type: ignore[arg-type]  # whole numbers


@given(st.lists(st.floats(min_value=0, max_value=60), min_size=3, max_size=3))
def test_times_of_processes_add_up_to_the_same_in_any_order(seconds: list[float]) -> None:
    """Or else a counter were less than before by the last digit, which Prometheus takes for a restart."""
    parts = [Histogram() for _ in seconds]
    for part, each in zip(parts, seconds, strict=True):
        part.observe(each)
    one, two, three = (Counters(sync_times={"IPv4": part}) for part in parts)
    assert Counters.total(one, Counters.total(two, three)) == Counters.total(Counters.total(one, two), three)


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
    total.sync_times["never-seen"].observe(0.5)
    total.dial_seconds.observe(0.5)
    assert total.connections_ended["never-seen"] == counters.connections_ended.get("never-seen", 0) + 1


def test_a_histogram_of_another_version_is_not_understood_rather_than_added_up_wrongly() -> None:
    with pytest.raises(msgspec.ValidationError, match="a histogram of 3 buckets, not 16"):
        msgspec.convert({"dial_seconds": {"counts": [1, 2, 3], "total": 1}}, Counters)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (16.384, 14), (16.4, 15), (1e9, 15)]
)
def test_a_duration_counts_in_the_first_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    histogram = Histogram()
    histogram.observe(seconds)
    assert histogram.counts.index(1) == bucket
    assert [count for _, count in histogram.cumulative()] == [0] * bucket + [1] * (16 - bucket)


@pytest.mark.parametrize("struct", [Counters, Figures, Moments])
def test_every_field_says_what_it_is(struct: type[msgspec.Struct]) -> None:
    assert tuple(one.field for one in declared(struct)) == struct.__struct_fields__
    for one in declared(struct):
        assert one.metric.help.endswith("."), one.field
        assert bool(one.metric.labels) == isinstance(getattr(struct(), one.field), dict), one.field
        assert one.metric.per_service == one.field.startswith("service_") or one.field == "services_left_out"


def test_every_counter_is_shown_once_with_its_value() -> None:
    families = {family.name: family for family in text_string_to_metric_families(shown(everything()))}
    assert len({one.name for one in DECLARED.values()}) == len(FIELDS)
    for number, one in enumerate(DECLARED.values(), 1):
        family = families[one.name]
        assert family.documentation == one.metric.help
        labels = {label: f"some-{label}" for label in one.metric.labels}
        samples = [each for each in family.samples if labels.items() <= each.labels.items()]
        if one.histogram is not None:
            found = {sample.name.removeprefix(one.name): sample.value for sample in samples}
            assert (found["_count"], found["_sum"]) == (1, number)
            assert samples[0].labels == labels | {"le": str(one.histogram.BOUNDS[0])}
            continue
        (sample,) = samples
        value = number / NANOSECONDS if one.metric.nanoseconds else number
        assert (sample.name, sample.value, sample.labels) == (f"{one.name}_total", value, labels)


def test_series_are_there_from_the_start() -> None:
    lines = shown(Counters()).splitlines()
    for line in (
        'userproxy_connections_ended_total{reason="client-reset"} 0.0',
        'userproxy_relayed_bytes_total{direction="up"} 0.0',
        "userproxy_dial_seconds_count 0.0",
        'userproxy_loop_lag_seconds_bucket{le="+Inf",process="worker"} 0.0',
        'userproxy_backends{state="ejected"} 0.0',
        'kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"} 0.0',
        'kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 0.0',
        'kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"} 0.0',
    ):
        assert line in lines, line
    assert "_created" not in "".join(lines)


def test_labels_have_a_closed_set_of_values_but_for_these() -> None:
    assert {one.field for one in DECLARED.values() if one.metric.labels and not one.metric.keys} == {
        "worker_cpu_time",
        "api_requests",
        "api_times",
        *(one.field for one in DECLARED.values() if one.metric.per_service),
        *(one.field for one in DECLARED.values() if FAMILY in one.metric.labels),
    }


def test_each_reason_that_is_counted_has_its_series_from_the_start() -> None:
    package = Path(userproxy.__file__).parent
    counted = re.compile(r'\b(\w+)\["([a-z0-9-]+)"\](?:\.observe|\s*\+=)|(_lost)\((?:\s*)"([a-z-]+)"')
    found = {
        (match[1] or "datagrams_dropped", match[2] or match[4])
        for path in package.rglob("*.py")
        if "tests" not in path.parts
        for match in counted.finditer(path.read_text())
    }
    assert ("accept_pauses", "limit") not in found, "that one is a variable"
    assert {("worker_restarts", "died"), ("datagrams_dropped", "no-backend")} <= found
    for field, key in found:
        if field in DECLARED:
            assert key in DECLARED[field].metric.keys, field
    kinds = {*DIAL_ERRORS.values(), "other"} - {DIAL_ERRORS[GIVEN_UP]}
    assert kinds == set(DECLARED["failed_dials"].metric.keys)
    assert {*kinds, "hedged"} == set(DECLARED["retried_dials"].metric.keys)


def test_single_services_are_shown_only_if_wanted() -> None:
    assert "userproxy_service_" not in shown(everything(), per_service=False)
    assert 'userproxy_service_connections_opened_total{service="some-service"}' in shown(everything())


def test_no_other_metric_has_the_name_of_a_counter() -> None:
    types = [line.split()[2] for line in shown(everything()).splitlines() if line.startswith("# TYPE")]
    assert len(set(types)) == len(types)
