"""Which backends are checked, when, and what comes of it: real sockets, virtual time."""

from __future__ import annotations

import errno
import socket as net
from typing import TYPE_CHECKING

import pytest

from userproxy.backends.checker import Checker
from userproxy.backends.service import LiveService
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.service import PoolName, ServicePortName
from userproxy.model.settings import Check, HealthCheck, Settings
from userproxy.model.state import Backend, Serve
from userproxy.tests.sockets import Clock, VirtualTimers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.backends.backend import LiveBackend
    from userproxy.tests.sockets import Sockets

pytestmark = pytest.mark.usefixtures("quiet")

NAME = ServicePortName("default", "web")
STEADY = Settings(check=Check(kind=HealthCheck.TCP, interval=5.0, rise=2, fall=3))


class Node:
    """A checker and one Service port, whose pods are listening sockets."""

    def __init__(self, sockets: Sockets, settings: Settings, pods: int = 1, share: float = 1.0) -> None:
        self.clock, self.timers = Clock(), VirtualTimers()
        self.poller = sockets.poller(self.clock)
        self.listeners = [net.create_server(("127.0.0.1", 0)) for _ in range(pods)]
        self.addresses = [Address(*listener.getsockname()) for listener in self.listeners]
        self.settings = settings
        self.service = LiveService(self.serve(), clock=self.clock)
        self.services = {PoolName.of(NAME): self.service}
        self.counters = Counters()
        self.checker = Checker(
            self.timers.loop, self.poller, self.services, self.counters, share, lambda: 0.5
        )
        self.service.on_failure = self.checker.hasten

    def serve(self, count: int | None = None) -> Serve:
        """All pods, or the first ones."""
        return Serve(
            service=NAME,
            listener=Address("10.100.0.2", 10400),
            backends=tuple(Backend(address) for address in self.addresses[:count]),
            settings=self.settings,
        )

    def live(self, number: int = 0) -> LiveBackend:
        """A backend."""
        found = self.service.find(self.addresses[number])
        assert found is not None
        return found

    def checks(self, seconds: float) -> int:
        """Let time go by; how many checks were made meanwhile."""
        before = sum(self.counters.health_checks.values())
        for _ in range(round(seconds / 0.05)):
            self.clock.now += 0.05
            self.timers.tick()
            self.poller.dispatch()
        return sum(self.counters.health_checks.values()) - before

    def close(self) -> None:
        """The end."""
        self.checker.stop()
        for listener in self.listeners:
            listener.close()


@pytest.fixture
def nodes(sockets: Sockets) -> Iterator[list[Node]]:
    made: list[Node] = []
    yield made
    for node in made:
        node.close()
    del sockets


def node(nodes: list[Node], sockets: Sockets, settings: Settings = STEADY, pods: int = 1) -> Node:
    nodes.append(Node(sockets, settings, pods))
    return nodes[-1]


def test_a_backend_is_checked_at_its_interval(nodes: list[Node], sockets: Sockets) -> None:
    mine = node(nodes, sockets)
    mine.checks(2.0)
    assert mine.checks(50.0) in (9, 10)
    assert "failed" not in mine.counters.health_checks


def test_by_default_only_services_with_traffic_are_checked(nodes: list[Node], sockets: Sockets) -> None:
    mine = node(nodes, sockets, Settings())
    assert mine.checks(30.0) == 0
    mine.service.pick("10.9.9.9", ())
    assert mine.checks(30.0) > 4
    mine.clock.now += 300.0
    mine.checks(6.0)
    assert mine.checks(30.0) == 0


def test_checks_can_be_switched_off(nodes: list[Node], sockets: Sockets) -> None:
    mine = node(nodes, sockets, Settings(check=Check(kind=HealthCheck.OFF)))
    mine.service.pick("10.9.9.9", ())
    assert mine.checks(10.0) == 0


def test_a_dead_backend_is_out_soon_and_back_when_it_lives_again(nodes: list[Node], sockets: Sockets) -> None:
    mine = node(nodes, sockets, pods=2)
    mine.checks(2.0)
    mine.listeners[0].close()
    mine.checks(5.0 + 2 * 1.0 + 0.5)  # the interval, and what is left of `fall` in doubt
    assert (mine.live().down, mine.live(1).down) == (True, False)
    address = mine.addresses[0]
    mine.listeners[0] = net.create_server((address.ip, address.port))
    mine.checks(5.0 + 1.0 + 0.5)
    assert not mine.live().down


def test_a_backend_that_a_client_could_not_reach_is_checked_at_once(
    nodes: list[Node], sockets: Sockets
) -> None:
    mine = node(nodes, sockets)
    mine.checks(2.0)
    assert mine.checks(0.2) == 0
    mine.service.dial_failed(mine.live(), errno.ECONNREFUSED)
    assert mine.checks(0.2) == 1


def test_the_number_of_checks_is_bounded_and_everybody_has_a_turn(
    nodes: list[Node], sockets: Sockets
) -> None:
    hurried = Settings(check=Check(kind=HealthCheck.TCP, interval=0.1))
    nodes.append(Node(sockets, hurried, pods=20, share=0.1))
    mine = nodes[-1]
    mine.checks(2.0)
    assert mine.checks(10.0) <= 200 + 1
    assert all(mine.live(number).latency is not None for number in range(20))


def test_a_backend_that_is_gone_is_checked_no_more(nodes: list[Node], sockets: Sockets) -> None:
    mine = node(nodes, sockets, pods=2)
    mine.checks(6.0)
    mine.service.update(mine.serve(count=1))
    mine.checks(6.0)
    assert mine.checks(50.0) in (9, 10)
    del mine.services[PoolName.of(NAME)]
    mine.checks(6.0)
    assert mine.checks(50.0) == 0
    assert not mine.checker._turns


def test_pods_that_never_close_hold_no_sockets_and_no_check_up(nodes: list[Node], sockets: Sockets) -> None:
    mine = node(nodes, sockets, pods=3)
    mine.checks(2.0)
    assert mine.checks(50.0) in range(27, 31)
    mine.checks(mine.settings.check.timeout + 0.1)
    mine.clock.now += mine.settings.check.timeout
    mine.timers.tick()
    assert len(mine.poller._handlers) == len(mine.checker._running) == 0
