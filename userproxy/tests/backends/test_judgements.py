"""What one process has found of backends, and another one goes on with."""

from __future__ import annotations

import errno

from userproxy.backends.judgements import is_well, judgements, later, learn
from userproxy.backends.service import LiveService
from userproxy.model.heritage import Judgement
from userproxy.model.settings import Check, HealthCheck, Settings
from userproxy.tests.dataplane.steered.bench import address, steer

CHECKED = Settings(check=Check(kind=HealthCheck.TCP))


class Process:
    """One that has a Service of four backends, and a clock."""

    def __init__(self, now: float, settings: Settings | None = None) -> None:
        self.now = now
        self.service = LiveService(steer(range(4), settings), draw=lambda: 0.5, clock=lambda: self.now)

    def fail(self, number: int, times: int) -> None:
        """Dials of a backend are refused."""
        for _ in range(times):
            self.service.dial_failed(self.service.backends[number], errno.ECONNREFUSED)

    def tell(self) -> list[Judgement]:
        """What it knows."""
        return judgements(self.service, self.now)

    def learn(self, *told: Judgement) -> None:
        """It is told by another."""
        learn(self.service, told, self.now)

    def picks(self, times: int = 12) -> set[int]:
        """Who is picked."""
        found = (self.service.pick("10.0.9.1", ()) for _ in range(times))
        return {self.service.backends.index(live) for live in found if live is not None}


def test_of_backends_that_nobody_has_looked_at_there_is_nothing_to_tell() -> None:
    assert Process(100.0).tell() == []


def test_an_ejected_one_stays_ejected_for_the_rest_of_its_time() -> None:
    one, next_one = Process(100.0), Process(7000.0)
    one.fail(2, 3)
    one.now += 2.0
    next_one.learn(*one.tell())
    assert next_one.picks() == {0, 1, 3}
    assert next_one.tell() == one.tell()
    next_one.now += 2.9
    assert 2 not in next_one.picks()
    next_one.now += 0.2
    assert 2 in next_one.picks()


def test_the_time_that_a_message_was_kept_counts() -> None:
    one, next_one = Process(100.0), Process(7000.0)
    one.fail(2, 3)
    (told,) = one.tell()
    next_one.learn(later(told, 4.75))
    assert next_one.tell() == [later(told, 4.75)]
    assert 2 not in next_one.picks()
    next_one.now += 0.25
    assert 2 in next_one.picks()


def test_failures_that_have_ejected_nobody_yet_are_counted_on() -> None:
    one, next_one = Process(100.0), Process(7000.0)
    one.fail(1, 2)
    next_one.learn(*one.tell())
    next_one.fail(1, 1)
    assert 1 not in next_one.picks()


def test_who_has_recovered_is_ejected_for_longer_the_next_time() -> None:
    one, next_one = Process(100.0), Process(7000.0)
    one.fail(1, 3)
    one.now += 6.0
    one.service.dial_answered(one.service.backends[1], 0.001)
    one.now += 1.0
    next_one.learn(*one.tell())
    assert 1 in next_one.picks()
    next_one.fail(1, 3)
    (told,) = next_one.tell()
    assert (told.until, told.ejections) == (10.0, 2)


def test_what_checks_have_found_is_told_and_counts_where_there_are_checks() -> None:
    one = Process(100.0, CHECKED)
    for _ in range(CHECKED.check.fall):
        one.service.take_check(one.service.backends[3], "HTTP 503", 0.1)
    checked, unchecked = (
        Process(7000.0, settings) for settings in (CHECKED, Settings(check=Check(kind=HealthCheck.OFF)))
    )
    for each in (checked, unchecked):
        each.learn(*one.tell())
    assert checked.picks() == {0, 1, 2}
    assert checked.tell() == one.tell()
    assert unchecked.picks() == {0, 1, 2, 3}


def test_a_slow_start_goes_on() -> None:
    slow = Settings(slow_start=30.0)
    one, next_one = Process(100.0, slow), Process(7000.0, slow)
    one.fail(1, 3)
    one.now += 6.0
    one.service.dial_answered(one.service.backends[1], 0.001)
    one.now += 10.0
    next_one.learn(*one.tell())
    assert next_one.service.backends[1].came == next_one.now - 10.0
    assert next_one.tell() == one.tell()


def test_of_whom_it_is_told_that_all_is_well_nothing_is_held_against() -> None:
    process = Process(100.0)
    process.fail(2, 3)
    assert is_well(Judgement(address(2)))
    process.learn(Judgement(address(2)), Judgement(address(9), failures=3))
    assert process.picks() == {0, 1, 2, 3}
    assert process.tell() == []
