"""Where a listener cannot be opened, nobody is sent there, and everything else holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import Path, PoolName, Protocol, ServicePort, ServicePortName
from userproxy.model.state import Frontend, NodeState, Refuse, ToListener, ToPods
from userproxy.planner.ports import PortBook
from userproxy.planner.state import Planner
from userproxy.planner.unopened import without_listeners
from userproxy.tests.planner.test_state import POD1, POD2, service, snapshot
from userproxy.tests.services import cluster_ips, context

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.snapshot import Snapshot

NOTHING = NodeState()
FIRST, SECOND = service(1), service(2)
HOST = "10.100.0.2"


def planned(services: Iterable[ServicePort], ports: range = range(10400, 10500)) -> NodeState:
    wanted: Snapshot = snapshot(services)
    state, _ = Planner(PortBook(ports)).wanted(wanted, context(ports=ports), NOTHING)
    return state


def tcp(number: int) -> Frontend:
    """The frontend of a numbered Service."""
    return Frontend(Protocol.TCP, Address(f"10.3.0.{number}", 80))


def guarded(state: NodeState) -> set[int]:
    """The host ports that are guarded."""
    return {guard.address.port for guard in state.guards}


def test_while_every_listener_opens_nothing_is_different() -> None:
    wanted = planned([FIRST])
    assert without_listeners(wanted, NOTHING, ()) is wanted
    assert without_listeners(wanted, NOTHING, [PoolName("default", "unknown")]) is wanted


def test_clients_of_a_service_without_its_listener_are_refused_and_others_are_served() -> None:
    wanted = planned([FIRST, SECOND])
    state = without_listeners(wanted, NOTHING, [PoolName.of(FIRST.name)])
    assert list(state.serves) == [PoolName.of(SECOND.name)]
    assert state.captures == {tcp(1): Refuse(), tcp(2): ToListener(Address(HOST, 10401))}
    assert guarded(state) == {10401}


def test_udp_at_the_same_address_goes_where_it_went() -> None:
    dns = msgspec.structs.replace(
        service(1, path=Path.REDIRECT_TO_POD, protocol=Protocol.UDP),
        name=ServicePortName("default", "dns", "dns-udp"),
    )
    udp = Frontend(Protocol.UDP, tcp(1).address)
    wanted = planned([FIRST, dns])
    state = without_listeners(wanted, NOTHING, [PoolName.of(FIRST.name)])
    assert state.captures == {tcp(1): Refuse(), udp: ToPods((POD1, POD2))}
    assert state.flows == wanted.flows


def test_one_that_is_served_by_an_earlier_listener_stays_with_it() -> None:
    actual = planned([FIRST])
    wanted = planned([FIRST, SECOND], range(10450, 10500))  # each gets another host port
    state = without_listeners(wanted, actual, [PoolName.of(FIRST.name)])
    assert state.serves[PoolName.of(FIRST.name)] == actual.serves[PoolName.of(FIRST.name)]
    assert state.captures[tcp(1)] == ToListener(Address(HOST, 10400))
    assert guarded(state) == {10400, 10451}


def test_a_frontend_that_is_new_is_refused_though_an_earlier_listener_serves_the_others() -> None:
    actual = planned([FIRST])
    more = msgspec.structs.replace(FIRST, entries=(*FIRST.entries, *cluster_ips(tcp(9).address)))
    state = without_listeners(planned([more], range(10450, 10500)), actual, [PoolName.of(FIRST.name)])
    assert state.captures == {tcp(1): ToListener(Address(HOST, 10400)), tcp(9): Refuse()}


def test_one_that_refused_before_refuses_still() -> None:
    actual = msgspec.structs.replace(planned([FIRST]), captures={tcp(1): Refuse()})
    state = without_listeners(planned([FIRST], range(10450, 10500)), actual, [PoolName.of(FIRST.name)])
    assert state.captures == {tcp(1): Refuse()}


def test_a_service_without_backends_is_refused_anyway() -> None:
    empty = snapshot([FIRST], pods=[])
    planner = Planner(PortBook(range(10400, 10500)))
    wanted, _ = planner.wanted(empty, context(), NOTHING)
    state = without_listeners(wanted, NOTHING, [PoolName.of(FIRST.name)])
    assert (state.serves, state.captures, state.guards) == ({}, {tcp(1): Refuse()}, {})


def test_one_that_is_served_as_it_is_wanted_is_not_taken_away() -> None:
    wanted = planned([FIRST, SECOND])
    assert without_listeners(wanted, wanted, [PoolName.of(FIRST.name)]) is wanted
