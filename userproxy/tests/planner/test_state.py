"""What is wanted of the data side and the kernel, Service port by Service port, round after round."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.network import NodeNetwork
from userproxy.model.service import Path, PoolName, Protocol, ServicePort, ServicePortName, TrafficPolicy
from userproxy.model.snapshot import EMPTY, Node, Problem, Snapshot
from userproxy.model.state import Backend, Drop, Frontend, NodeState, Refuse, Target, ToListener, ToPods
from userproxy.planner import topology
from userproxy.planner.actions import actions_for
from userproxy.planner.context import PlanContext
from userproxy.planner.ports import PortBook
from userproxy.planner.state import Planner
from userproxy.tests.services import cluster_ips

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HERE = Node("host1", "zone-a")
POD1, POD2 = Address("10.0.1.2", 8080), Address("10.0.2.2", 8080)
TO_POD = "annotate the Service with userproxy.dev/path: redirect-to-pod"


class Daemon:
    """A planner that is asked in rounds, each applied in full before the next."""

    def __init__(self, ports: range = range(10400, 18400), mode: Path = Path.REDIRECT_TO_HOST) -> None:
        self.book = PortBook(ports)
        self.planner = Planner(self.book)
        self._mode = mode
        self.wanted = NodeState()
        self.problems: tuple[Problem, ...] = ()

    def round(self, snapshot: Snapshot, node: Node = HERE) -> NodeState:
        """Plan for a snapshot, and apply the plan."""
        self.wanted, self.problems = self.planner.wanted(snapshot, self.context(node), self.wanted)
        return self.wanted

    def context(self, node: Node = HERE) -> PlanContext:
        """Of this node."""
        return PlanContext(node, NodeNetwork(("10.100.0.2",)), self._mode, self.book.range, fall_open=False)

    def port(self, service: ServicePort) -> int | None:
        """The host port that a Service port is served on."""
        serve = self.wanted.serves.get(PoolName.of(service.name))
        return serve.listener.port if serve else None


def service(number: int = 1, *, path: Path | None = None, protocol: Protocol = Protocol.TCP) -> ServicePort:
    return ServicePort(
        name=ServicePortName("default", f"service-{number}", "http"),
        protocol=protocol,
        entries=cluster_ips(Address(f"10.3.0.{number}", 80)),
        path=path,
    )


def snapshot(services: Iterable[ServicePort], pods: Sequence[Address] = (POD1, POD2)) -> Snapshot:
    """Each of the Services with all of the pods behind it."""
    services = tuple(services)
    endpoints = tuple(Endpoint(address=pod, node="host2") for pod in pods)
    return Snapshot({one.name: one for one in services}, {one.name: endpoints for one in services})


def targets(wanted: NodeState) -> list[Target]:
    return list(wanted.captures.values())


def test_a_service_is_relayed_by_a_listener_on_the_host() -> None:
    web = service()
    wanted = Daemon().round(snapshot([web]))
    listener = Address("10.100.0.2", 10400)
    serve = wanted.serves[PoolName.of(web.name)]
    assert serve.listener == listener
    assert serve.backends == (Backend(POD1, "host2"), Backend(POD2, "host2"))
    assert wanted.captures == {Frontend(Protocol.TCP, web.cluster_ips[0]): ToListener(listener)}


def test_a_service_without_backends_keeps_its_listener_and_refuses() -> None:
    web = service()
    wanted = Daemon().round(snapshot([web], pods=[]))
    assert wanted.serves[PoolName.of(web.name)].backends == ()
    assert targets(wanted) == [Refuse()]
    assert wanted.guards.keys() == {Frontend(Protocol.TCP, Address("10.100.0.2", 10400))}


def test_a_listener_is_guarded_as_long_as_it_is_wanted() -> None:
    daemon = Daemon()
    first, second = service(1), service(2)
    guards = daemon.round(snapshot([first, second])).guards
    assert {guard.address for guard in guards} == {serve.listener for serve in daemon.wanted.serves.values()}
    assert daemon.round(snapshot([first, second], pods=[POD1])).guards is guards
    daemon.round(snapshot([second]))
    assert {guard.address for guard in daemon.wanted.guards} == {
        daemon.wanted.serves[PoolName.of(second.name)].listener
    }


def test_a_service_whose_endpoints_are_not_known_refuses() -> None:
    web = service()
    assert targets(Daemon().round(Snapshot({web.name: web}, {}))) == [Refuse()]


@pytest.mark.parametrize("path", list(Path))
def test_traffic_that_a_policy_forbids_is_dropped(path: Path) -> None:
    web = msgspec.structs.replace(service(path=path), internal_traffic_policy=TrafficPolicy.LOCAL)
    assert targets(Daemon().round(snapshot([web]))) == [Drop()]


@pytest.mark.parametrize("protocol", list(Protocol))
def test_redirect_to_pod_needs_no_listener_and_no_port(protocol: Protocol) -> None:
    daemon = Daemon()
    web = service(path=Path.REDIRECT_TO_POD, protocol=protocol)
    wanted = daemon.round(snapshot([web]))
    assert wanted.serves == {}
    assert wanted.captures == {Frontend(protocol, web.cluster_ips[0]): ToPods((POD1, POD2))}
    assert not daemon.book.live
    assert targets(daemon.round(snapshot([web], pods=[]))) == [Refuse()]


def test_the_mode_decides_for_services_that_do_not_choose() -> None:
    one, two = service(1), service(2, path=Path.REDIRECT_TO_HOST)
    wanted = Daemon(mode=Path.REDIRECT_TO_POD).round(snapshot([one, two]))
    assert wanted.serves.keys() == {PoolName.of(two.name)}


def test_on_a_node_of_one_family_the_other_is_left_out_and_the_rest_is_served() -> None:
    daemon = Daemon()
    web = msgspec.structs.replace(
        service(), entries=cluster_ips(Address("fd00::1", 80), Address("10.3.0.1", 80))
    )
    pods = [POD1, Address("fd00::2", 8080)]
    wanted = daemon.round(snapshot([web], pods))
    assert [frontend.address.ip for frontend in wanted.captures] == ["10.3.0.1"]
    assert wanted.pools == {Frontend(Protocol.TCP, Address("10.3.0.1", 80)): PoolName.of(web.name)}
    assert [backend.address for backend in wanted.serves[PoolName.of(web.name)].backends] == [POD1]
    assert daemon.problems == ()


def test_a_service_of_a_family_that_the_node_lacks_takes_no_port_and_is_told() -> None:
    daemon = Daemon()
    web = msgspec.structs.replace(service(), entries=cluster_ips(Address("fd00::1", 80)))
    wanted = daemon.round(snapshot([web]))
    assert (wanted.serves, wanted.captures, dict(daemon.book.live)) == ({}, {}, {})
    assert [(one.reason, one.message.partition(" ")[0]) for one in daemon.problems] == [
        ("AddressFamilyNotSupported", "[fd00::1]:80")
    ]


def test_a_service_keeps_its_port_whatever_changes_on_it() -> None:
    daemon = Daemon()
    daemon.round(snapshot([service(1), service(2)]))
    changed = msgspec.structs.replace(service(2), entries=cluster_ips(Address("10.3.9.9", 443)))
    daemon.round(snapshot([service(3), changed], pods=[]))
    assert daemon.port(changed) == 10401
    daemon.round(EMPTY)
    daemon.round(snapshot([service(4)]))
    daemon.round(snapshot([service(2), service(1)]))
    assert (daemon.port(service(1)), daemon.port(service(2))) == (10400, 10401)


def test_ports_do_not_depend_on_the_order_in_which_services_arrive() -> None:
    daemon = Daemon()
    daemon.round(snapshot([service(3), service(1), service(2)]))
    assert [daemon.port(service(number)) for number in (1, 2, 3)] == [10400, 10401, 10402]


def test_a_service_without_a_port_refuses_until_one_frees_up() -> None:
    daemon = Daemon(range(10400, 10401))
    one, two = service(1), service(2)
    wanted = daemon.round(snapshot([one, two]))
    assert targets(wanted) == [ToListener(Address("10.100.0.2", 10400)), Refuse()]
    assert wanted.serves.keys() == {PoolName.of(one.name)}
    message = (
        f"refused, as no host port is left in 10400-10400: widen --port-range, or {TO_POD}, which needs none"
    )
    assert daemon.problems == (Problem("default/service-2:http", "PortRangeExhausted", message),)

    only_two = snapshot([two])
    assert targets(daemon.round(only_two)) == [Refuse()], "the other listener is yet to be closed"
    assert targets(daemon.round(only_two)) == [ToListener(Address("10.100.0.2", 10400))]
    assert not daemon.problems


def test_a_port_is_not_given_away_while_its_listener_is_open() -> None:
    daemon = Daemon(range(10400, 10401))
    before = daemon.round(snapshot([service(1)]))
    for _ in range(3):
        wanted, _ = daemon.planner.wanted(snapshot([service(2)]), daemon.context(), before)
        assert wanted.serves == {}, "the plan that closes it has not been applied"


def test_a_service_that_moves_to_pods_gives_its_port_up_and_gets_it_back() -> None:
    daemon = Daemon(range(10400, 10401))
    to_pod, two = service(1, path=Path.REDIRECT_TO_POD), service(2)
    daemon.round(snapshot([service(1)]))
    daemon.round(snapshot([to_pod]))
    daemon.round(snapshot([service(1)]))
    assert daemon.port(service(1)) == 10400
    moved = snapshot([to_pod, two])
    daemon.round(moved)
    daemon.round(moved)
    assert daemon.port(two) == 10400


def test_an_occupied_port_is_replaced_in_the_next_round() -> None:
    daemon = Daemon()
    both = snapshot([service(1), service(2)])
    daemon.round(both)
    daemon.book.mark_occupied(10400)
    wanted = daemon.round(both)
    assert (daemon.port(service(1)), daemon.port(service(2))) == (10402, 10401)
    assert ToListener(Address("10.100.0.2", 10400)) not in targets(wanted)


def test_a_service_whose_port_is_occupied_refuses_if_no_other_is_left() -> None:
    daemon = Daemon(range(10400, 10401))
    web = snapshot([service()])
    daemon.round(web)
    daemon.book.mark_occupied(10400)
    assert targets(daemon.round(web)) == [Refuse()]
    assert daemon.wanted.serves == {}
    daemon.book.retry_occupied()
    assert targets(daemon.round(web)) == [ToListener(Address("10.100.0.2", 10400))]


def test_a_frontend_that_two_services_claim_stays_with_the_first() -> None:
    daemon = Daemon()
    first = service(1)
    second = msgspec.structs.replace(
        service(2), entries=(*first.entries, *cluster_ips(Address("10.3.0.2", 80)))
    )
    for claims in ([first, second], [first, second, service(3)]):
        wanted = daemon.round(snapshot(claims))
        assert wanted.captures[Frontend(Protocol.TCP, first.cluster_ips[0])] == ToListener(
            Address("10.100.0.2", 10400)
        )
        owners = {frontend.address.ip: pool.service_port for frontend, pool in wanted.pools.items()}
        assert (owners["10.3.0.1"], owners["10.3.0.2"]) == (first.name, second.name)
        message = (
            "10.3.0.1:80/TCP belongs to default/service-1:http: give one of the two another address or port"
        )
        assert daemon.problems == (Problem("default/service-2:http", "PortConflict", message),)
    wanted = daemon.round(snapshot([second]))
    assert set(wanted.pools.values()) == {PoolName.of(second.name)}
    assert len(wanted.captures) == 2
    assert not daemon.problems


def test_a_conflict_that_arises_later_is_settled_by_the_order_of_services() -> None:
    daemon = Daemon()
    second = msgspec.structs.replace(service(2), entries=service(1).entries)
    daemon.round(snapshot([second]))
    wanted = daemon.round(snapshot([service(1), second]))
    assert targets(wanted) == [ToListener(wanted.serves[PoolName.of(service(1).name)].listener)]


def test_the_same_address_may_serve_two_protocols() -> None:
    daemon = Daemon(mode=Path.REDIRECT_TO_POD)
    udp = msgspec.structs.replace(service(2, protocol=Protocol.UDP), entries=service(1).entries)
    assert len(daemon.round(snapshot([service(1), udp])).captures) == 2
    assert not daemon.problems


def test_a_node_that_learns_its_zone_is_planned_for_anew() -> None:
    web = service()
    near = Endpoint(address=POD1, hint_zones=("zone-a",))
    far = Endpoint(address=POD2, hint_zones=("zone-b",))
    state = Snapshot({web.name: web}, {web.name: (near, far)})
    daemon = Daemon()
    assert len(daemon.round(state, Node("host1")).serves[PoolName.of(web.name)].backends) == 2
    assert daemon.round(state, HERE).serves[PoolName.of(web.name)].backends == (Backend(POD1),)
    assert daemon.port(web) == 10400


def test_one_change_among_many_services_is_one_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[ServicePortName] = []

    def counted(
        service: ServicePort, endpoints: Sequence[Endpoint], node: Node, policy: TrafficPolicy
    ) -> topology.Choice:
        chosen.append(service.name)
        return choose(service, endpoints, node, policy)

    choose = topology.select
    monkeypatch.setattr(topology, "select", counted)
    daemon = Daemon()
    before = snapshot(service(number) for number in range(200))
    first = daemon.round(before)
    assert len(chosen) == 200

    changed = service(7).name
    after = Snapshot(dict(before.services), {**before.endpoints, changed: (Endpoint(address=POD1),)})
    chosen.clear()
    second = daemon.round(after)
    assert chosen == [changed]
    steps = actions_for(second, first)
    assert [serve.service for serve in steps.serve] == [changed]
    assert second.captures is first.captures, "so that nobody has to compare them"
    assert all(
        second.serves[name] is first.serves[name] for name in first.serves if name.service_port != changed
    )

    chosen.clear()
    assert daemon.round(Snapshot(dict(after.services), dict(after.endpoints))) is second
    assert chosen == []


def test_many_services_that_wait_for_a_port_cost_nothing_while_nothing_changes() -> None:
    daemon = Daemon(range(10400, 10401))
    crowd = snapshot(service(number) for number in range(9))
    before = daemon.round(crowd)
    assert daemon.round(crowd) is before


@st.composite
def histories(draw: st.DrawFn) -> list[Snapshot]:
    """Snapshots of Services that come, go, change, and claim each other's addresses."""
    addresses = st.sampled_from([Address(f"10.3.0.{number}", 80) for number in range(4)])
    one = st.builds(
        ServicePort,
        name=st.sampled_from([ServicePortName("default", letter) for letter in "abcde"]),
        protocol=st.sampled_from(Protocol),
        entries=st.lists(addresses, max_size=2, unique=True).map(lambda found: cluster_ips(*found)),
        path=st.sampled_from([None, *Path]),
    )
    pods = st.lists(st.sampled_from([Endpoint(address=POD1), Endpoint(address=POD2)]), unique=True).map(tuple)
    known = {service.name: service for service in draw(st.lists(one))}
    endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}
    history = []
    for _ in range(draw(st.integers(1, 6))):
        for changed in draw(st.lists(one, max_size=2)):
            known = known | {changed.name: changed}
            endpoints = endpoints | {changed.name: draw(pods)}
        for gone in draw(st.lists(st.sampled_from(list(known)), max_size=2)) if known else ():
            known = {name: service for name, service in known.items() if name != gone}
        history.append(Snapshot(known, endpoints))
    return history


@given(histories())
def test_what_is_kept_from_earlier_rounds_never_shows(history: list[Snapshot]) -> None:
    daemon = Daemon(range(10400, 10403))
    for state in history:
        actual = daemon.wanted
        book = copy.deepcopy(daemon.book)
        wanted = daemon.round(state)
        anew = Planner(book)
        assert anew.wanted(state, daemon.context(), actual) == (wanted, daemon.problems)
        listeners = {serve.listener: name for name, serve in actual.serves.items()}
        for serve in actions_for(wanted, actual).serve:
            assert listeners.get(serve.listener, serve.name) == serve.name, "it is another one's yet"
