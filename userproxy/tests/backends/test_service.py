"""Which backend a Service port gives to whom, as clients' dials and checks tell of them."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from userproxy.backends.service import LiveService
from userproxy.model.address import Address
from userproxy.model.service import ServicePortName
from userproxy.model.settings import Balance, Check, HealthCheck, Settings
from userproxy.model.state import Backend, Serve

if TYPE_CHECKING:
    from userproxy.backends.backend import LiveBackend

pytestmark = pytest.mark.usefixtures("quiet")

CLIENT = "10.9.9.9"
REFUSED, SILENT = errno.ECONNREFUSED, errno.ETIMEDOUT


class Bench:
    """A Service port with numbered backends, and a clock that the test sets."""

    def __init__(self, count: int, settings: Settings | None = None, far: int = 0) -> None:
        self.now = 1000.0
        self.draw = random.Random(1)  # noqa: S311 - repeatable
        self.service = LiveService(
            serve(range(count), settings, far), draw=self.draw.random, clock=lambda: self.now
        )

    def backend(self, number: int) -> LiveBackend:
        """By its number."""
        found = self.service.find(address(number))
        assert found is not None
        return found

    def picks(self, count: int) -> list[int]:
        """Whom so many connections get at their first attempt."""
        found = (self.service.pick(CLIENT, ()) for _ in range(count))
        return [number_of(live) for live in found if live]

    def order(self) -> list[int]:
        """Whom one connection tries, if all fail."""
        tried: tuple[LiveBackend, ...] = ()
        while (live := self.service.pick(CLIENT, tried)) is not None:
            tried = (*tried, live)
        return [number_of(live) for live in tried]

    def fail(self, number: int, error: int = REFUSED, times: int = 3) -> None:
        """So many dials fail."""
        for _ in range(times):
            self.service.dial_failed(self.backend(number), error)

    def state(self, number: int) -> str:
        """How a backend is."""
        return self.backend(number).condition(self.now).state

    def checks(self, number: int, outcomes: str) -> None:
        """Checks pass (`+`) or fail (`-`)."""
        for outcome in outcomes:
            self.service.take_check(self.backend(number), "" if outcome == "+" else "refused", 0.001)


def address(number: int) -> Address:
    return Address(f"10.0.0.{number}", 8080)


def number_of(live: LiveBackend) -> int:
    return int(live.address.ip.rpartition(".")[2])


def serve(numbers: range | list[int], settings: Settings | None = None, far: int = 0) -> Serve:
    return Serve(
        service=ServicePortName("default", "web"),
        listener=Address("10.100.0.2", 10400),
        backends=tuple(Backend(address(number)) for number in numbers),
        far=tuple(Backend(address(100 + number)) for number in range(far)),
        settings=settings or Settings(),
    )


def test_a_backend_that_refuses_is_ejected_and_tried_last() -> None:
    bench = Bench(3)
    bench.fail(1)
    assert bench.picks(4) == [0, 2, 0, 2]
    assert bench.order()[-1] == 1
    assert bench.backend(1).condition(bench.now).reason == "dials fail: connection refused; again in 5 s"


def test_the_first_connection_after_the_hold_is_the_probe() -> None:
    bench = Bench(3)
    bench.fail(1)
    bench.now += 5.0
    assert bench.picks(3).count(1) == 1
    bench.service.dial_answered(bench.backend(1), 0.001)
    assert set(bench.picks(3)) == {0, 1, 2}
    assert bench.service.counters.backend_changes == {"ejected": 1, "up": 1}


def test_a_probe_that_fails_costs_no_further_client_anything_for_twice_as_long() -> None:
    bench = Bench(3)
    bench.fail(1)
    bench.now += 5.0
    assert 1 in bench.picks(1)
    bench.service.dial_failed(bench.backend(1), SILENT)
    bench.now += 9.9
    assert 1 not in bench.picks(6)
    bench.now += 0.1
    assert 1 in bench.picks(1)


def test_a_client_that_has_failed_already_is_no_probe() -> None:
    bench = Bench(3)
    bench.fail(1)
    bench.now += 5.0
    assert bench.service.pick(CLIENT, (bench.backend(0),)) is bench.backend(2)


def test_at_most_half_are_ejected() -> None:
    bench = Bench(6)
    for number in range(5):
        bench.fail(number)
    assert [bench.state(number) for number in range(6)].count("ejected") == 3


def test_the_last_backend_is_never_ejected() -> None:
    bench = Bench(1)
    bench.fail(0, times=50)
    assert bench.picks(2) == [0, 0]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL])
def test_what_we_lack_ourselves_is_not_the_backends_fault(error: int) -> None:
    bench = Bench(2)
    bench.fail(0, error, times=20)
    assert bench.state(0) == "up"


def test_checks_take_a_backend_out_and_bring_it_back() -> None:
    bench = Bench(2)
    bench.checks(1, "---")
    assert (bench.state(1), bench.picks(2)) == ("down", [0, 0])
    bench.checks(1, "++")
    assert (bench.state(1), set(bench.picks(2))) == ("up", {0, 1})


def test_checks_bring_an_ejected_backend_back_before_its_time() -> None:
    bench = Bench(2)
    bench.fail(1)
    bench.checks(1, "++")
    assert bench.state(1) == "up"


def test_no_client_is_a_probe_where_the_last_check_failed() -> None:
    bench = Bench(3)
    bench.fail(1)
    bench.checks(1, "-")
    bench.now += 60.0
    assert 1 not in bench.picks(6)


def test_checks_that_are_switched_off_hold_nobody_back() -> None:
    bench = Bench(2)
    bench.checks(1, "---")
    bench.service.update(serve(range(2), Settings(check=Check(kind=HealthCheck.OFF))))
    assert set(bench.picks(2)) == {0, 1}


def test_what_is_known_of_a_backend_survives_updates() -> None:
    bench = Bench(3)
    bench.fail(1)
    bench.service.update(serve([1, 2]))
    assert bench.state(1) == "ejected"


def test_a_backend_that_comes_back_while_it_has_connections_keeps_their_count() -> None:
    bench = Bench(2)
    live = bench.backend(1)
    live.connections = 7
    bench.service.update(serve([0]))
    assert live.removed == bench.now
    bench.service.update(serve([0, 1]))
    assert bench.backend(1) is live
    assert live.removed is None


def test_one_that_is_only_leaving_has_not_been_removed() -> None:
    bench = Bench(2)
    live = bench.backend(1)
    live.connections = 1
    leaving = msgspec.structs.replace(serve([0]), leaving=(address(1),))
    bench.service.update(leaving)
    assert live.removed is None
    bench.now += 10
    bench.service.update(serve([0]))
    assert live.removed == bench.now


def test_one_that_is_only_leaving_is_removed_with_its_service() -> None:
    bench = Bench(2)
    kept, leaving = bench.backend(0), bench.backend(1)
    kept.connections = leaving.connections = 1
    bench.service.update(msgspec.structs.replace(serve([0]), leaving=(address(1),)))
    assert leaving.removed is None
    bench.now += 10
    bench.service.retire()
    assert kept.removed == leaving.removed == bench.now


def test_one_that_was_removed_before_its_service_keeps_its_time() -> None:
    bench = Bench(2)
    live = bench.backend(1)
    live.connections = 1
    bench.service.update(serve([0]))
    removed = bench.now
    bench.now += 10
    bench.service.retire()
    assert live.removed == removed


CLIENTS = [f"10.8.0.{number}" for number in range(60)]


def pins(bench: Bench) -> dict[str, int]:
    """Which backend each client gets."""
    return {client: number_of(live) for client in CLIENTS if (live := bench.service.pick(client, ()))}


def test_a_client_bound_to_a_backend_is_no_probe_of_another() -> None:
    bench = Bench(4, Settings(balance=Balance.SOURCE_HASH))
    before = pins(bench)
    bench.fail(1)
    bench.now += 5.0
    own = [client for client in CLIENTS if before[client] == 1]
    for client in CLIENTS:
        if client not in own:
            live = bench.service.pick(client, ())
            assert live is bench.backend(before[client])
    assert bench.service.pick(own[0], ()) is bench.backend(1), "its own client is"
    assert 1 not in pins(bench).values(), "one at a time"
    bench.service.dial_answered(bench.backend(1), 0.001)
    assert pins(bench) == before


@given(
    st.sets(st.integers(0, 5), max_size=3),
    st.sets(st.integers(0, 5), max_size=2),
    st.sampled_from([0.0, 5.0, 20.0]),
    st.randoms(use_true_random=False),
)
def test_whoever_is_out_a_bound_client_leaves_a_backend_only_for_one_that_it_stays_with(
    ejected: set[int], down: set[int], wait: float, order: random.Random
) -> None:
    bench = Bench(3, Settings(balance=Balance.SOURCE_HASH), far=3)
    backends = bench.service.backends
    for place in down:
        bench.checks(number_of(backends[place]), "---")
    for place in ejected:
        bench.fail(number_of(backends[place]))
    assume(not bench.service.rotation.panic)  # or each that comes back may change who counts
    bench.now += wait
    for client in order.sample(CLIENTS, len(CLIENTS)):
        own = bench.service.balancer.pick((), client)
        live = bench.service.pick(client, ())
        assert live is not None
        if live is not own:
            assert live.ejected
            bench.service.dial_answered(live, 0.001)
            assert bench.service.pick(client, ()) is live


def test_far_backends_take_over_while_most_near_ones_are_out() -> None:
    bench = Bench(2, far=2)
    assert set(bench.picks(6)) == {0, 1}
    bench.checks(0, "---")
    bench.checks(1, "---")
    assert set(bench.picks(6)) == {100, 101}


def test_a_new_backend_starts_slowly_where_its_author_wants_it_and_the_first_ones_do_not() -> None:
    settings = Settings(balance=Balance.ROUND_ROBIN, slow_start=30.0)
    bench = Bench(2, settings)
    assert bench.picks(40).count(0) == 20
    bench.service.update(serve(range(3), settings))
    assert 0 < bench.picks(300).count(2) < 50
    bench.now += 30.0
    assert bench.picks(300).count(2) == 100


def test_another_way_of_balancing_takes_effect_at_once() -> None:
    bench = Bench(4)
    bench.service.update(serve(range(4), Settings(balance=Balance.SOURCE_HASH)))
    assert len(set(bench.picks(8))) == 1


def test_limits_count_connections_and_give_them_back() -> None:
    bench = Bench(1, Settings(max_connections=3, max_connections_per_client=2))
    service = bench.service
    for client in ("a", "a", "b"):
        assert not service.is_full
        service.enter(client)
    assert service.is_full
    assert service.is_full_for("a")
    assert not service.is_full_for("b")
    for client in ("a", "a", "b"):
        service.leave(client)
    assert (service.connections, service.is_full, service.is_full_for("a")) == (0, False, False)


def test_dials_that_fail_are_counted_and_those_that_are_tried_elsewhere_too() -> None:
    bench = Bench(2)
    bench.fail(0, times=1)
    bench.service.retry(bench.backend(0))
    bench.fail(1, SILENT, times=1)
    assert bench.service.counters.failed_dials == {"refused": 1, "timeout": 1}
    assert bench.service.counters.retried_dials == {"refused": 1}


EVENTS = st.one_of(
    st.tuples(st.just("fail"), st.integers(0, 5), st.sampled_from([REFUSED, SILENT, errno.EMFILE])),
    st.tuples(st.just("answer"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("check"), st.integers(0, 5), st.integers(0, 1)),
    st.tuples(st.just("wait"), st.integers(0, 5), st.integers(0, 400)),
    st.tuples(st.just("update"), st.integers(0, 63), st.integers(0, 63)),
)


@given(st.sampled_from(Balance), st.lists(EVENTS, max_size=30))
def test_whatever_happens_a_connection_tries_every_backend_there_is_once(
    balance: Balance, events: list[tuple[str, int, int]]
) -> None:
    settings = Settings(balance=balance, slow_start=10.0)
    bench = Bench(6, settings)
    present = list(range(6))
    for what, number, detail in events:
        live = bench.service.find(address(number))
        if what == "update":
            present = [each for each in range(6) if number >> each & 1]
            bench.service.update(serve(present, settings))
        elif what == "wait":
            bench.now += detail
        elif live is not None and what == "fail":
            bench.service.dial_failed(live, detail)
        elif live is not None and what == "answer":
            bench.service.dial_answered(live, 0.001)
        elif live is not None and what == "check":
            bench.service.take_check(live, "refused" if detail else "", 0.001)
        assert sorted(bench.order()) == present


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_processes_share_a_services_limit_and_each_has_its_part(limit: int) -> None:
    allowed = 0
    for index in range(3):
        service = LiveService(serve([0], Settings(max_connections=limit)), (index, 3))
        while not service.is_full:
            service.enter(CLIENT)
            allowed += 1
    assert allowed == limit
