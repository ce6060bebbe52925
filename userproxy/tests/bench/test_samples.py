"""Medians, spreads and ratios."""

from __future__ import annotations

import pytest

from userproxy.bench.samples import Results, Sample, Spread, spread


def sample(path: str, value: float, round_: int = 0, services: int = 0) -> Sample:
    return Sample(path=path, metric="requests_64", value=value, round=round_, services=services)


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)


def test_one_value_is_its_own_spread() -> None:
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0, 1)


def test_an_outlier_moves_neither_median_nor_quartiles_far() -> None:
    assert spread([10.0, 10.0, 10.0, 10.0, 1000.0]) == Spread(10.0, 10.0, 10.0, 5)


def test_no_values_have_no_spread() -> None:
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_a_ratio_is_taken_within_each_round() -> None:
    # In the second round somebody else had half of the CPU: both halved, and the ratio stays. In the third,
    # only one of both was disturbed: the median of the ratios leaves that out, other averages do not.
    pairs = ((80, 100), (40, 50), (10, 100))
    results = Results(
        [
            one
            for number, (a, b) in enumerate(pairs)
            for one in (sample("a", a, number), sample("b", b, number))
        ]
    )
    assert results.ratio("requests_64", "a", "b") == 0.8


def test_a_round_in_which_one_of_both_failed_says_nothing_of_the_ratio() -> None:
    results = Results([sample("a", 80), sample("b", 100), sample("a", 500, 1)])
    assert results.ratio("requests_64", "a", "b") == 0.8


def test_there_is_no_ratio_to_what_was_not_measured_or_was_nothing() -> None:
    results = Results([sample("a", 80), sample("zero", 0)])
    assert results.ratio("requests_64", "a", "b") is None
    assert results.ratio("requests_64", "b", "a") is None
    assert results.ratio("requests_64", "a", "zero") is None


def test_sizes_are_kept_apart_and_in_order() -> None:
    results = Results([sample("a", 3, services=1000), sample("a", 1, services=1), sample("a", 2, services=1)])
    assert results.sizes("requests_64") == [1, 1000]
    assert results.spread("requests_64", "a", 1) == Spread(1.5, 1.25, 1.75, 2)
    assert results.spread("requests_64", "a", 100) is None
