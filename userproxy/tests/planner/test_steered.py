"""The path steered: as redirect to pod, with all that whoever chooses must know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.service import (
    Entry,
    EntryKind,
    Path,
    PoolName,
    Protocol,
    ServicePort,
    ServicePortName,
    TrafficPolicy,
)
from userproxy.model.settings import Check, HealthCheck, NoEndpoints, Settings
from userproxy.model.snapshot import Problem, Snapshot
from userproxy.model.state import Backend, Drop, Frontend, NodeState, Refuse, Steer, ToListener, ToPods
from userproxy.model.steering import MOST_PODS
from userproxy.planner.paths.steered import unsteered
from userproxy.planner.ports import PortBook
from userproxy.planner.state import Planner
from userproxy.tests.services import cluster_ips, context

if TYPE_CHECKING:
    from userproxy.planner.context import PlanContext

VIP, NODE_PORT = Address("10.3.0.1", 80), Address("10.100.0.2", 30080)
LISTENER = Address("10.100.0.2", 10400)
HERE, ELSEWHERE, IN_WEST = (Address(f"10.0.{number}.2", 8080) for number in (1, 2, 3))
ENDPOINTS = (
    Endpoint(address=HERE, node="host1", zone="east", hint_zones=("east",)),
    Endpoint(address=ELSEWHERE, node="host2", zone="east", hint_zones=("east",)),
    Endpoint(address=IN_WEST, node="host3", zone="west", hint_zones=("west",)),
)
NAME = ServicePortName("default", "web", "http")
WEB = ServicePort(name=NAME, protocol=Protocol.TCP, entries=cluster_ips(VIP))
EXTERNAL = replace(
    WEB,
    entries=(*WEB.entries, Entry(EntryKind.NODE_PORT, Address("0.0.0.0", 30080))),  # noqa: S104 - as the API has it
    external_traffic_policy=TrafficPolicy.LOCAL,
)
CLUSTER, LOCAL = PoolName.of(NAME), PoolName.of(NAME, TrafficPolicy.LOCAL)
FRONTEND = Frontend(Protocol.TCP, VIP)


class Daemon:
    """A planner whose plans are applied in full."""

    def __init__(self, path: Path = Path.STEERED, **changes: object) -> None:
        self._context: PlanContext = replace(context(path), **changes)
        self._planner = Planner(PortBook(self._context.ports))
        self.state = NodeState()
        self.problems: tuple[Problem, ...] = ()

    def plan(self, *services: ServicePort, endpoints: tuple[Endpoint, ...] = ENDPOINTS) -> NodeState:
        """Have these Services, each with the endpoints."""
        snapshot = Snapshot(
            {each.name: each for each in services}, {each.name: endpoints for each in services}
        )
        self.state, self.problems = self._planner.wanted(snapshot, self._context, self.state)
        return self.state


def test_the_kernel_asks_before_it_sends_to_a_pod_and_both_know_it_by_the_same_index() -> None:
    state = Daemon().plan(WEB)
    assert state.captures == {FRONTEND: ToPods((HERE, ELSEWHERE), steered=True, others=(IN_WEST,))}
    near = Backend(HERE, "host1", "east"), Backend(ELSEWHERE, "host2", "east")
    far = (Backend(IN_WEST, "host3", "west"),)
    assert state.steered == {CLUSTER: Steer(service=NAME, backends=near, far=far, frontends=(VIP,))}
    assert (state.serves, state.checked, state.queues) == ({}, {}, 1)


def test_who_is_from_outside_is_asked_for_by_the_mark() -> None:
    state = Daemon().plan(EXTERNAL)
    told = {name: (steer.frontends, steer.outside) for name, steer in state.steered.items()}
    assert told == {CLUSTER: ((VIP, NODE_PORT), ()), LOCAL: ((), (NODE_PORT,))}
    assert [each.address for each in state.steered[LOCAL].backends] == [HERE]


def test_for_who_is_to_get_no_answer_nobody_is_asked() -> None:
    """A load balancer finds out by the silence that this node has no pod; whoever is asked would refuse."""
    elsewhere = tuple(each for each in ENDPOINTS if each.node != "host1")
    state = Daemon().plan(EXTERNAL, endpoints=elsewhere)
    assert state.captures[Frontend(Protocol.TCP, NODE_PORT, outside=True)] == Drop()
    assert state.steered[CLUSTER].frontends == (VIP, NODE_PORT)
    assert state.steered[LOCAL].outside == ()


def test_what_a_listener_has_to_relay_stays_with_it() -> None:
    state = Daemon().plan(EXTERNAL)
    assert state.captures[Frontend(Protocol.TCP, Address("127.0.0.1", 30080))] == ToListener(LISTENER)
    assert state.serves.keys() == {CLUSTER}


def test_without_endpoints_clients_are_refused_or_wait_in_the_queue_and_at_a_listener_if_it_is_not_read() -> (
    None
):
    daemon = Daemon()
    assert daemon.plan(WEB, endpoints=()).captures == {FRONTEND: Refuse()}
    assert daemon.state.steered[CLUSTER].backends == ()
    held = replace(WEB, settings=Settings(no_endpoints=NoEndpoints.HOLD))
    asked_first = {FRONTEND: ToListener(LISTENER, steered=True)}
    assert Daemon().plan(held, endpoints=()).captures == asked_first
    assert Daemon(queues=0).plan(held, endpoints=()).captures == {FRONTEND: ToListener(LISTENER)}


def test_pods_of_udp_are_not_checked_and_flows_may_lead_to_the_far_ones_too() -> None:
    udp = replace(WEB, protocol=Protocol.UDP, settings=Settings(check=Check(kind=HealthCheck.TCP)))
    state = Daemon().plan(udp)
    assert state.steered[CLUSTER].settings.check.kind is HealthCheck.OFF
    assert state.steered[CLUSTER].protocol is Protocol.UDP
    assert set(state.flows[Frontend(Protocol.UDP, VIP)]) == {HERE, ELSEWHERE, IN_WEST}


def test_a_mark_has_room_for_so_many_pods_and_more_are_drawn_from_by_the_rules() -> None:
    many = tuple(
        Endpoint(address=Address("10.0.0.1", port), node="host1") for port in range(1, MOST_PODS + 2)
    )
    daemon = Daemon()
    (target,) = daemon.plan(WEB, endpoints=many[:MOST_PODS]).captures.values()
    assert (isinstance(target, ToPods) and target.steered, daemon.problems) == (True, ())
    (target,) = daemon.plan(WEB, endpoints=many).captures.values()
    assert (isinstance(target, ToPods) and target.steered, daemon.state.steered) == (False, {})
    (problem,) = daemon.problems
    assert (problem.about, problem.reason) == (str(NAME), "TooManyPods")
    assert problem.message.startswith("path redirect-to-pod is used, as a mark tells 8191 pods apart")


def test_without_queues_in_the_kernel_it_is_redirect_to_pod() -> None:
    without = Daemon(queues=0).plan(EXTERNAL)
    assert without == Daemon(Path.REDIRECT_TO_POD).plan(EXTERNAL)
    assert (without.steered, without.queues) == ({}, 0)


@pytest.mark.parametrize("limits", [Settings(max_connections=5), Settings(max_connections_per_client=5)])
def test_limits_are_kept_by_whoever_chooses_and_by_the_kernel_while_nobody_does(
    limits: Settings,
) -> None:
    limited = replace(WEB, settings=limits)
    daemon = Daemon()
    assert daemon.plan(limited).steered[CLUSTER].settings == limits
    assert daemon.problems == ()
    for captures in (daemon.state.captures, Daemon(queues=0).plan(limited).captures):
        target = captures[FRONTEND]
        assert isinstance(target, ToPods)
        assert target.most == limits.max_connections
        assert target.most_per_client == limits.max_connections_per_client
    for queues, told in ((1, []), (0, ["LimitsNotKept"])):
        without = Daemon(queues=queues, limits=False)
        without.plan(limited)
        assert [each.reason for each in without.problems] == told


def test_that_a_kernel_has_no_queues_is_told_once_for_all_services() -> None:
    web, other = replace(WEB, path=Path.STEERED), replace(WEB, name=ServicePortName("default", "other"))
    both = Snapshot({WEB.name: web, other.name: replace(other, path=Path.STEERED)}, {})
    without = replace(context(Path.REDIRECT_TO_POD), queues=0)
    (problem,) = unsteered(both, without)
    assert (problem.about, problem.reason) == ("host1", "NoQueues")
    assert unsteered(Snapshot({other.name: other}, {}), without) == ()
    assert unsteered(Snapshot({other.name: other}, {}), replace(without, mode=Path.STEERED)) == (problem,)
    assert unsteered(both, context(Path.STEERED)) == ()


def test_packets_wait_for_as_long_as_any_service_is_steered() -> None:
    daemon = Daemon(Path.REDIRECT_TO_POD, queues=2)
    assert daemon.plan(WEB).queues == 0
    assert daemon.plan(replace(WEB, path=Path.STEERED)).queues == 2
    assert daemon.plan(WEB).queues == 0


@pytest.mark.parametrize("outside", [False, True])
def test_who_loses_an_address_is_not_asked_for_its_packets(outside: bool) -> None:
    winner = replace(WEB, name=ServicePortName("default", "first"), entries=cluster_ips(NODE_PORT))
    policy = TrafficPolicy.LOCAL if outside else TrafficPolicy.CLUSTER
    state = Daemon().plan(winner, replace(EXTERNAL, external_traffic_policy=policy))
    assert NODE_PORT in state.steered[PoolName.of(winner.name)].frontends
    lost = state.steered[LOCAL if outside else CLUSTER]
    assert NODE_PORT not in (*lost.frontends, *lost.outside)


def test_who_does_not_change_keeps_his_identity_as_another_changes() -> None:
    daemon = Daemon()
    other = replace(WEB, name=ServicePortName("default", "other"), entries=cluster_ips(HERE))
    before = daemon.plan(WEB, other)
    after = daemon.plan(WEB, replace(other, affinity=60.0))
    assert before.steered[CLUSTER] is after.steered[CLUSTER]
    assert after.steered[PoolName.of(other.name)].affinity == 60.0
