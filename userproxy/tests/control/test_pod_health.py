"""Pods to which netfilter sends connections by itself: checked, taken out of the map, brought back."""

from __future__ import annotations

import socket as net
from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.control.pod_health import PodHealth
from userproxy.model.address import Address
from userproxy.model.service import PoolName, Protocol, ServicePortName, TrafficPolicy
from userproxy.model.settings import Check, HealthCheck, Settings
from userproxy.model.state import Backend, Frontend, NodeState, Pool, Refuse, ToListener, ToPods
from userproxy.tests.sockets import Clock, VirtualTimers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.tests.sockets import Sockets

NAME = ServicePortName("default", "web")
POOL = PoolName.of(NAME)
FRONTEND = Frontend(Protocol.TCP, Address("10.3.0.1", 80))
OTHER = Frontend(Protocol.TCP, Address("10.3.0.2", 80))
CHECKED = Settings(check=Check(kind=HealthCheck.TCP, interval=5.0, rise=2, fall=3))
WHILE_USED = Settings()
LISTENER = Address("10.100.0.2", 10400)
BACKLOG = 1000
"""Nobody accepts, so every check that passes stays in it."""
SOON = 10.0
"""Seconds that are more than the checks need to change their mind."""


class Node:
    """Two pods, which are listening sockets, and a Service whose packets netfilter sends to them."""

    def __init__(self, sockets: Sockets) -> None:
        self._clock, self._timers = Clock(), VirtualTimers()
        self._poller = sockets.poller(self._clock)
        self._listeners = [net.create_server(("127.0.0.1", 0), backlog=BACKLOG) for _ in range(2)]
        self.pods = tuple(Address(*listener.getsockname()) for listener in self._listeners)
        self.told = 0
        self.settings = CHECKED
        self.pod_health = self.daemon()

    def daemon(self) -> PodHealth:
        """A daemon that starts."""
        made = PodHealth(self._timers.loop, self._poller)
        made.on_change = self._tell
        return made

    def _tell(self) -> None:
        self.told += 1

    @property
    def wanted(self) -> NodeState:
        """By what the source says."""
        backends = tuple(Backend(pod) for pod in self.pods)
        pool = Pool(service=NAME, backends=backends, settings=self.settings)
        return NodeState(
            captures={FRONTEND: ToPods(self.pods), OTHER: ToPods(self.pods)},
            checked={POOL: pool},
            frontends={POOL: (FRONTEND,)},
        )

    def targets(self, actual: NodeState | None = None) -> tuple[Address, ...]:
        """Where the Service's next connections go."""
        captures = self.pod_health.restrict(self.wanted, actual or NodeState()).captures
        assert captures[OTHER] == ToPods(self.pods), "nobody asked for checks of that one"
        target = captures[FRONTEND]
        assert isinstance(target, ToPods)
        return target.pods

    def later(self, seconds: float = SOON) -> None:
        """Let time go by."""
        for _ in range(round(seconds / 0.05)):
            self._clock.now += 0.05
            self._timers.tick()
            self._poller.dispatch()

    def stop(self, *numbers: int) -> None:
        """These pods listen no more."""
        for number in numbers:
            self._listeners[number].close()

    def start(self, number: int) -> None:
        """A pod listens again."""
        address = self.pods[number]
        self._listeners[number] = net.create_server((address.ip, address.port), backlog=BACKLOG)

    def close(self) -> None:
        """The end."""
        self.pod_health.close()
        self.stop(0, 1)


@pytest.fixture
def node(sockets: Sockets) -> Iterator[Node]:
    made = Node(sockets)
    yield made
    made.close()


def test_a_dead_pod_leaves_the_map_and_comes_back(node: Node) -> None:
    assert node.targets() == node.pods
    node.stop(0)
    node.later()
    assert node.told == 1
    assert node.targets() == node.pods[1:]
    assert (
        node.pod_health.services[POOL].backends[0].condition(0.0).reason == "health check: connection refused"
    )
    node.start(0)
    node.later()
    assert node.told == 2
    assert node.targets() == node.pods


def test_a_check_that_ends_after_its_service_is_gone_changes_nothing(node: Node) -> None:
    node.targets()
    service = node.pod_health.services[POOL]
    for _ in range(2):
        service.take_check(service.backends[0], "timed out", 1.0)
    gone = msgspec.structs.replace(node.wanted, checked={})
    assert node.pod_health.restrict(gone, NodeState()) is gone
    service.take_check(service.backends[0], "timed out", 1.0)
    assert service.backends[0].down
    assert node.pod_health.restrict(gone, NodeState()) is gone
    assert node.told == 0


def test_a_restricted_capture_is_found_again_among_many_without_comparing_them(node: Node) -> None:
    node.targets()
    node.stop(0)
    node.later()
    first = node.pod_health.restrict(node.wanted, NodeState())
    second = node.pod_health.restrict(node.wanted, first)
    assert second.captures is first.captures
    other = Frontend(Protocol.TCP, Address("10.3.0.3", 80))
    more = msgspec.structs.replace(node.wanted, captures={**node.wanted.captures, other: ToPods(node.pods)})
    third = node.pod_health.restrict(more, second)
    assert third.captures == {**first.captures, other: ToPods(node.pods)}
    less = msgspec.structs.replace(more, captures={OTHER: ToPods(node.pods)}, checked={})
    assert node.pod_health.restrict(less, third) is less


def test_while_every_pod_looks_dead_all_of_them_stay(node: Node) -> None:
    node.targets()
    node.stop(0, 1)
    node.later()
    assert node.targets() == node.pods


def test_a_restricted_capture_stays_so_in_every_round(node: Node) -> None:
    node.targets()
    node.stop(0)
    node.later()
    assert [node.targets() for _ in range(3)] == [node.pods[1:]] * 3


def test_nothing_is_restricted_while_all_is_well(node: Node) -> None:
    wanted = node.wanted
    assert node.pod_health.restrict(wanted, NodeState()) is wanted


def test_a_service_that_asks_for_checks_no_more_gets_all_of_its_pods(node: Node) -> None:
    node.targets()
    node.stop(0)
    node.later()
    node.targets()
    unchecked = msgspec.structs.replace(node.wanted, checked={})
    assert node.pod_health.restrict(unchecked, NodeState()) is unchecked
    assert not node.pod_health.services


def test_what_an_earlier_daemon_took_out_stays_out_until_it_has_passed_its_checks(node: Node) -> None:
    node.stop(0)
    adopted = NodeState(captures={FRONTEND: ToPods(node.pods[1:])})
    assert node.targets(adopted) == node.pods[1:]
    node.later()
    assert node.targets(adopted) == node.pods[1:]
    node.start(0)
    node.later()
    assert node.targets(adopted) == node.pods


def test_without_an_earlier_daemon_all_pods_count_as_well(node: Node) -> None:
    assert node.targets(NodeState()) == node.pods


def test_by_default_pods_are_checked_while_their_service_is_in_use(node: Node) -> None:
    node.settings = WHILE_USED
    node.targets()
    node.stop(0)
    node.later()
    assert not node.pod_health.counters.health_checks, "nobody has used it"
    node.pod_health.notice({OTHER})
    node.later()
    assert not node.pod_health.counters.health_checks, "that is another Service's"
    assert node.pod_health.wants_to_know
    node.pod_health.notice({FRONTEND})
    node.later()
    assert node.targets() == node.pods[1:]


def test_a_pod_that_is_out_is_checked_until_it_is_back_though_nobody_uses_its_service(node: Node) -> None:
    node.settings = WHILE_USED
    node.targets()
    node.stop(0)
    node.pod_health.notice({FRONTEND})
    node.later()
    for _ in range(5):
        node.later(100.0)
        node.pod_health.notice(())
    assert node.targets() == node.pods[1:]
    node.start(0)
    node.later()
    assert node.targets() == node.pods
    for _ in range(4):
        node.later(100.0)
        node.pod_health.notice(())
    assert not node.pod_health.services, "and then it is looked at no more"


def test_by_default_what_an_earlier_daemon_took_out_stays_out_too(node: Node) -> None:
    node.settings = WHILE_USED
    node.stop(0)
    assert node.targets(NodeState(captures={FRONTEND: ToPods(node.pods[1:])})) == node.pods[1:]


def test_a_pod_that_comes_while_nobody_uses_its_service_is_not_held_back(node: Node) -> None:
    node.settings = WHILE_USED
    before = node.wanted
    captures = {**before.captures, FRONTEND: ToPods(node.pods[1:])}
    pool = msgspec.structs.replace(before.checked[POOL], backends=(Backend(node.pods[1]),))
    one = msgspec.structs.replace(
        before, captures=captures, checked={POOL: pool}, frontends={POOL: (FRONTEND,)}
    )
    assert node.pod_health.restrict(one, NodeState()) is one
    assert node.targets(one) == node.pods


def test_who_comes_from_outside_uses_the_pool_of_the_external_policy(node: Node) -> None:
    node.settings = WHILE_USED
    cluster = node.wanted
    outside = msgspec.structs.replace(FRONTEND, outside=True)
    local = msgspec.structs.replace(cluster.checked[POOL], policy=TrafficPolicy.LOCAL)
    wanted = msgspec.structs.replace(
        cluster,
        captures={**cluster.captures, outside: ToPods(node.pods)},
        checked={**cluster.checked, local.name: local},
        frontends={**cluster.frontends, local.name: (outside,)},
    )
    node.pod_health.restrict(wanted, NodeState())
    node.pod_health.notice({outside})
    assert set(node.pod_health.services) == {local.name}
    node.pod_health.notice({FRONTEND})
    assert set(node.pod_health.services) == {local.name, POOL}
    node.pod_health.restrict(cluster, NodeState())
    node.pod_health.notice({FRONTEND, outside})
    assert set(node.pod_health.services) == {POOL}, "the policy is Cluster for everybody now"


def test_a_pool_that_has_lost_its_frontends_is_used_by_nobody(node: Node) -> None:
    node.settings = WHILE_USED
    node.pod_health.restrict(node.wanted, NodeState())
    node.pod_health.restrict(msgspec.structs.replace(node.wanted, frontends={}), NodeState())
    assert not node.pod_health.wants_to_know


def test_where_every_author_has_chosen_nobody_need_know_who_is_in_use(node: Node) -> None:
    node.targets()
    assert not node.pod_health.wants_to_know


def test_a_listener_and_a_refusal_stay_what_they_are_when_a_pod_is_taken_out(node: Node) -> None:
    loopback = Frontend(Protocol.TCP, Address("127.0.0.1", 30080))
    refused = Frontend(Protocol.TCP, Address("10.100.0.2", 30080))
    others = {loopback: ToListener(Address("10.100.0.2", 10400)), refused: Refuse()}
    wanted = node.wanted
    wanted = msgspec.structs.replace(
        wanted, captures={**wanted.captures, **others}, frontends={POOL: (FRONTEND, loopback, refused)}
    )
    node.pod_health.restrict(wanted, NodeState())
    node.stop(0)
    node.later()
    captures = node.pod_health.restrict(wanted, NodeState()).captures
    assert captures == {**wanted.captures, FRONTEND: ToPods(node.pods[1:])}


def test_what_is_left_of_the_pods_is_masqueraded_and_kept_as_before(node: Node) -> None:
    target = ToPods(node.pods, masquerade=True, affinity=60.0)
    wanted = msgspec.structs.replace(node.wanted, captures={FRONTEND: target})
    node.pod_health.restrict(wanted, NodeState())
    node.stop(0)
    node.later()
    captures = node.pod_health.restrict(wanted, NodeState()).captures
    assert captures == {FRONTEND: ToPods(node.pods[1:], masquerade=True, affinity=60.0)}


def test_a_policy_that_is_edited_holds_no_pod_back(node: Node) -> None:
    node.settings = WHILE_USED
    wanted = node.wanted
    pool = wanted.checked[POOL]
    local = msgspec.structs.replace(pool, policy=TrafficPolicy.LOCAL, backends=pool.backends[:1])
    before = msgspec.structs.replace(
        wanted,
        captures={**wanted.captures, FRONTEND: ToPods(node.pods[:1])},
        checked={local.name: local},
        frontends={local.name: (FRONTEND,)},
    )
    assert node.pod_health.restrict(before, NodeState()) is before
    assert node.pod_health.restrict(wanted, before) is wanted
