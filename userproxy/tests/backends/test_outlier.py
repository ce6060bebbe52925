"""What clients' dials make of a backend, told as it goes by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from userproxy.backends.outlier import FIRST_HOLD, LONGEST_HOLD, Outlier


def ejected(now: float = 0.0) -> Outlier:
    outlier = Outlier()
    outlier.failures = 3
    outlier.eject(now)
    return outlier


def test_three_refusals_in_a_row_are_enough_and_an_answer_in_between_is_not_forgotten() -> None:
    outlier = Outlier()
    assert [outlier.failed(0.0, timed_out=False) for _ in range(2)] == [False, False]
    outlier.succeeded(0.0)
    assert [outlier.failed(0.0, timed_out=False) for _ in range(3)] == [False, False, True]


def test_a_timeout_counts_twice() -> None:
    outlier = Outlier()
    assert not outlier.failed(0.0, timed_out=True)
    assert outlier.failed(0.0, timed_out=True)


def test_the_hold_doubles_up_to_its_longest() -> None:
    outlier, now, holds = ejected(), 0.0, []
    for _ in range(9):
        holds.append(outlier.until - now)
        now = outlier.until
        outlier.begin_probe(now)
        outlier.failed(now, timed_out=False)
    assert holds == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_one_probe_at_a_time_and_it_brings_the_backend_back() -> None:
    outlier = ejected()
    assert not outlier.may_be_probed(FIRST_HOLD - 0.1)
    assert outlier.may_be_probed(FIRST_HOLD)
    outlier.begin_probe(FIRST_HOLD)
    assert not outlier.may_be_probed(FIRST_HOLD)
    assert outlier.succeeded(FIRST_HOLD + 0.1)
    assert not outlier.ejected


def test_a_probe_of_which_nothing_is_heard_does_not_keep_the_backend_out() -> None:
    outlier = ejected()
    outlier.begin_probe(FIRST_HOLD)
    assert outlier.may_be_probed(FIRST_HOLD + 2.0)


def test_dials_that_had_begun_before_do_not_extend_the_hold() -> None:
    outlier = ejected()
    for _ in range(500):
        assert not outlier.failed(1.0, timed_out=True)
    assert outlier.until == FIRST_HOLD


def test_who_stayed_well_for_as_long_as_it_was_out_begins_anew_and_who_did_not_does_not() -> None:
    outlier = ejected()
    outlier.succeeded(FIRST_HOLD)
    outlier.eject(2 * FIRST_HOLD - 1)
    assert outlier.until == 2 * FIRST_HOLD - 1 + 10.0
    outlier.succeeded(20.0)
    outlier.eject(30.0)
    assert outlier.until == 30.0 + FIRST_HOLD


@given(st.lists(st.tuples(st.sampled_from("ftsep"), st.floats(0.0, 400.0)), max_size=40))
def test_whatever_happens_a_backend_can_come_back(events: list[tuple[str, float]]) -> None:
    outlier, now = Outlier(), 0.0
    for event, seconds in events:
        now += seconds
        if event in "ft":
            if outlier.failed(now, timed_out=event == "t"):
                outlier.eject(now)
        elif event == "s":
            outlier.succeeded(now)
            assert not outlier.ejected
        elif event == "p" and outlier.may_be_probed(now):
            outlier.begin_probe(now)
        assert outlier.until <= now + LONGEST_HOLD
    assert not outlier.ejected or outlier.may_be_probed(now + LONGEST_HOLD)
