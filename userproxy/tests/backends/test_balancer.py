"""What each way of balancing promises: evenly, or steadily, and never to one that may not be picked."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.backends.balancer import Balancer, make_balancer, warmth
from userproxy.model.address import Address
from userproxy.model.settings import Balance

CLIENTS = [f"10.1.{high}.{low}" for high in range(8) for low in range(64)]


class Pod:
    """A candidate."""

    def __init__(self, number: int, connections: int = 0) -> None:
        self.address = Address(f"10.0.0.{number}", 8080)
        self.connections = connections


def pods(count: int) -> tuple[Pod, ...]:
    return tuple(Pod(number) for number in range(count))


def balancer(kind: Balance, candidates: tuple[Pod, ...], seed: int = 1) -> Balancer[Pod]:
    made: Balancer[Pod] = make_balancer(kind, random.Random(seed).random)  # noqa: S311 - repeatable
    made.update(candidates)
    return made


def picks(made: Balancer[Pod], count: int) -> list[int]:
    return [int(pod.address.ip.rpartition(".")[2]) for pod in (made.pick() for _ in range(count)) if pod]


def places(made: Balancer[Pod]) -> dict[str, Address]:
    return {client: pod.address for client in CLIENTS if (pod := made.pick((), client))}


def test_round_robin_takes_each_in_turn() -> None:
    assert picks(balancer(Balance.ROUND_ROBIN, pods(3)), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_round_robin_goes_on_where_it_was_when_backends_come_and_go() -> None:
    four = pods(4)
    made = balancer(Balance.ROUND_ROBIN, four)
    assert picks(made, 2) == [0, 1]
    made.update((four[0], four[1], four[3]))
    assert picks(made, 2) == [3, 0]
    made.update(four)
    assert picks(made, 3) == [1, 2, 3]


def test_least_connections_takes_the_idlest_and_each_of_equals_in_turn() -> None:
    candidates = (Pod(0, 5), Pod(1, 2), Pod(2, 2))
    made = balancer(Balance.LEAST_CONNECTIONS, candidates)
    assert set(picks(made, 4)) == {1, 2}
    candidates[0].connections = 0
    assert picks(made, 3) == [0, 0, 0]


def test_random_two_takes_the_idler_of_two_and_never_the_busiest() -> None:
    candidates = (Pod(0, 9), Pod(1, 1), Pod(2, 5))
    found = Counter(picks(balancer(Balance.RANDOM_TWO, candidates), 300))
    assert 0 not in found
    assert found[1] > found[2] > 50


def test_source_hash_is_the_same_in_every_process_and_whatever_the_order() -> None:
    made = balancer(Balance.SOURCE_HASH, pods(5), seed=1)
    again = balancer(Balance.SOURCE_HASH, tuple(reversed(pods(5))), seed=2)
    assert places(made) == places(again)
    assert places(made)["10.1.0.0"] == Address("10.0.0.1", 8080)  # a restart may not change it, nor a release


def test_source_hash_is_even() -> None:
    found = Counter(places(balancer(Balance.SOURCE_HASH, pods(4))).values())
    assert len(found) == 4
    assert min(found.values()) > len(CLIENTS) / 4 * 0.75


def test_source_hash_moves_only_the_clients_of_a_backend_that_goes() -> None:
    five = pods(5)
    made = balancer(Balance.SOURCE_HASH, five)
    before = places(made)
    made.update(five[:2] + five[3:])
    after = places(made)
    moved = {client for client in CLIENTS if before[client] != after[client]}
    assert moved == {client for client in CLIENTS if before[client] == five[2].address}


def test_source_hash_sends_a_client_whose_backend_failed_always_to_the_same_other_one() -> None:
    made = balancer(Balance.SOURCE_HASH, pods(4))
    first = made.pick((), "10.1.0.1")
    assert first is not None
    others = {made.pick((first,), "10.1.0.1") for _ in range(5)}
    assert len(others) == 1
    assert first not in others


def test_slow_start_grows_evenly_from_a_tenth_to_all() -> None:
    assert [warmth(age, 30.0) for age in (0.0, 15.0, 30.0, 99.0)] == pytest.approx([0.1, 0.55, 1.0, 1.0])


@pytest.mark.parametrize("kind", Balance)
def test_a_backend_that_is_warming_up_gets_about_its_share(kind: Balance) -> None:
    candidates = pods(4)
    made = balancer(kind, candidates)

    def weigh(pod: Pod) -> float:
        return 0.1 if pod is candidates[0] else 1.0

    found: Counter[Pod] = Counter()
    for client in itertools.islice(itertools.cycle(CLIENTS), 2000):
        pod = made.pick((), client, weigh)
        assert pod is not None
        pod.connections += 1
        found[pod] += 1
    even = 2000 / 4
    assert even * 0.02 < found[candidates[0]] < even * 0.4


@pytest.mark.parametrize("kind", Balance)
def test_when_all_are_warming_up_somebody_is_picked(kind: Balance) -> None:
    made = balancer(kind, pods(3))
    assert all(made.pick((), client, lambda _: 0.1) for client in CLIENTS)


@given(st.sampled_from(Balance), st.data())
def test_whatever_happens_only_backends_that_may_be_picked_are_picked_and_each_once(
    kind: Balance, data: st.DataObject
) -> None:
    everybody = pods(6)
    made = balancer(kind, (), seed=data.draw(st.integers(0, 5)))
    for _ in range(data.draw(st.integers(1, 4))):
        allowed = tuple(data.draw(st.lists(st.sampled_from(everybody), unique=True)))
        made.update(allowed)
        weigh = data.draw(st.sampled_from([None, lambda _: 0.1, lambda _: 1.0]))
        tried: tuple[Pod, ...] = ()
        while (pod := made.pick(tried, "10.1.0.1", weigh)) is not None:
            pod.connections += 1
            tried = (*tried, pod)
        assert sorted(pod.address for pod in tried) == sorted(pod.address for pod in allowed)


@pytest.mark.parametrize("kind", Balance)
def test_an_ejected_backend_is_probed_by_its_own_clients_where_there_are_such(kind: Balance) -> None:
    five = pods(5)
    own = places(balancer(kind, five))
    made = balancer(kind, five[:2] + five[3:])
    may = {client for client in CLIENTS if made.may_probe(client, five[2], five)}
    bound = {client for client in CLIENTS if own[client] == five[2].address}
    assert may == (bound if kind is Balance.SOURCE_HASH else set(CLIENTS))
