"""Where a client IP goes, and for how long."""

from __future__ import annotations

from userproxy.backends.affinity import Affinity
from userproxy.backends.service import LiveService
from userproxy.model.address import Address
from userproxy.model.heritage import Pin
from userproxy.model.service import ServicePortName
from userproxy.model.state import Backend, Pool

A, B, C = (Address(f"10.0.0.{number}", 8080) for number in (1, 2, 3))
ALICE, BOB, CAROL = "10.0.1.1", "10.0.1.2", "10.0.1.3"
REFUSED = 111


class Clock:
    """Stands still unless told."""

    now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


class Node:
    """A Service port with affinity, on a worker."""

    def __init__(self, *backends: Address, timeout: float = 60.0, place: tuple[int, int] = (0, 1)) -> None:
        self.clock = Clock()
        self.timeout: float | None = timeout
        self.service = LiveService(self.pool(*backends), place, clock=self.clock)

    def pool(self, *backends: Address) -> Pool:
        """The Service port with these backends."""
        name = ServicePortName("default", "web")
        return Pool(service=name, backends=tuple(map(Backend, backends)), affinity=self.timeout)

    def now_has(self, *backends: Address) -> None:
        """Its endpoints change."""
        self.service.update(self.pool(*backends))

    def goes(self, client: str) -> Address:
        """Where a client's next connection goes, which is answered there."""
        found = self.service.pick(client, ())
        assert found is not None
        return found.address


def test_a_client_stays_and_new_ones_spread() -> None:
    node = Node(A, B, C)
    first = {client: node.goes(client) for client in (ALICE, BOB, CAROL)}
    assert set(first.values()) == {A, B, C}
    assert all(node.goes(client) == first[client] for client in (CAROL, ALICE, BOB, ALICE))


def test_only_the_client_of_a_pod_that_is_gone_moves() -> None:
    node = Node(A, B, C)
    first = {client: node.goes(client) for client in (ALICE, BOB, CAROL)}
    node.now_has(*(one for one in (A, B, C) if one != first[ALICE]))
    moved = node.goes(ALICE)
    assert moved != first[ALICE]
    assert (node.goes(BOB), node.goes(CAROL)) == (first[BOB], first[CAROL])
    node.now_has(A, B, C)
    assert node.goes(ALICE) == moved, "it does not go back"


def test_a_pod_that_cannot_be_reached_loses_its_client_for_good() -> None:
    node = Node(A, B)
    first = node.service.pick(ALICE, ())
    assert first is not None
    node.service.dial_failed(first, REFUSED)
    second = node.service.pick(ALICE, (first,))
    assert second is not None
    assert second is not first
    assert node.goes(ALICE) == second.address


def test_a_pod_that_checks_have_found_down_loses_its_client_too() -> None:
    node = Node(A, B, C)
    first = node.goes(ALICE)
    others = {A, B, C} - {first}
    node.service.begin_with(others)
    moved = node.goes(ALICE)
    assert moved in others
    node.service.begin_with({A, B, C})
    assert node.goes(ALICE) == moved


def test_the_time_begins_anew_with_each_connection_and_then_ends() -> None:
    node = Node(A, B)
    first = node.goes(ALICE)
    for _ in range(3):
        node.clock.now += 59.0
        assert node.goes(ALICE) == first
    node.clock.now += 60.0
    assert node.service.affinity.backend_of(ALICE, node.clock.now, 60.0) is None


def test_an_edited_timeout_holds_at_once_and_none_forgets() -> None:
    node = Node(A, B, timeout=10800.0)
    node.goes(ALICE)
    node.clock.now += 5.0
    node.timeout = 4.0
    node.now_has(A, B)
    assert node.service.affinity.backend_of(ALICE, node.clock.now, 4.0) is None
    node.goes(ALICE)
    node.timeout = None
    node.now_has(A, B)
    assert len(node.service.affinity) == 0


def test_workers_agree_on_a_client_that_none_of_them_knows() -> None:
    one, other = Node(A, B, C, place=(0, 2)), Node(A, B, C, place=(1, 2))
    clients = [f"10.0.2.{number}" for number in range(50)]
    pods = {client: one.goes(client) for client in clients}
    assert {client: other.goes(client) for client in reversed(clients)} == pods, "whoever asks first"


def test_workers_learn_from_each_other_and_are_told_once() -> None:
    one, other = Node(A, B, place=(0, 2)), Node(A, B, place=(1, 2))
    pinned = one.goes(ALICE)
    news = one.service.affinity.news(one.clock.now)
    assert [pin.client for pin in news] == [ALICE]
    one.goes(ALICE)
    assert one.service.affinity.news(one.clock.now) == []
    one.clock.now += 10.0
    one.goes(ALICE)
    assert len(one.service.affinity.news(one.clock.now)) == 1, "lest it end early there"
    other.service.affinity.learn(news, other.clock.now)
    other.now_has(A, B, C)
    assert other.goes(ALICE) == pinned
    assert other.service.affinity.news(other.clock.now) == [], "it is no news"


def test_what_was_heard_later_wins() -> None:
    affinity = Affinity()
    affinity.pin(ALICE, A, 100.0, 60.0)
    affinity.learn([Pin(ALICE, B, 5.0)], 100.0)
    assert affinity.backend_of(ALICE, 100.0, 60.0) == A
    affinity.learn([Pin(ALICE, B, 1.0)], 110.0)
    assert affinity.backend_of(ALICE, 110.0, 60.0) == B


def test_a_crowd_is_bounded_and_the_silent_are_forgotten_first() -> None:
    affinity = Affinity(most=3)
    for number in range(4):
        affinity.pin(f"10.0.3.{number}", A, float(number), 60.0)
        affinity.pin("10.0.3.0", A, float(number), 60.0)
    assert [pin.client for pin in affinity.all(4.0)] == ["10.0.3.2", "10.0.3.3", "10.0.3.0"]
    assert {pin.client for pin in affinity.news(4.0)} == {"10.0.3.0", "10.0.3.2", "10.0.3.3"}
