"""What a UDP Service port comes to where it is relayed: what TCP's does, and where its flows may lead."""

from __future__ import annotations

import msgspec
import pytest

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.network import NodeNetwork
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
from userproxy.model.settings import Check, HealthCheck, Settings
from userproxy.model.snapshot import Node, Snapshot
from userproxy.model.state import Frontend, NodeState, Refuse, Serve, ToListener, ToPods
from userproxy.planner.context import PlanContext
from userproxy.planner.ports import PortBook
from userproxy.planner.state import Planner
from userproxy.tests.services import cluster_ips

HERE = Node("host1")
LISTENER = Address("10.100.0.2", 10400)
POD1, POD2, POD3, POD4 = (Address(f"10.0.{number}.2", 7000) for number in (1, 2, 3, 4))
ECHO = ServicePort(
    name=ServicePortName("default", "echo", "echo"),
    protocol=Protocol.UDP,
    entries=cluster_ips(Address("10.3.0.1", 5000)),
)
CLUSTER_IP = Frontend(Protocol.UDP, Address("10.3.0.1", 5000))
NODE_PORT = Entry(EntryKind.NODE_PORT, Address("0.0.0.0", 30500))  # noqa: S104 - as the API has it


def ready(*pods: Address) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(address=pod, node="host1") for pod in pods)


def wanted(
    service: ServicePort, endpoints: tuple[Endpoint, ...], mode: Path = Path.REDIRECT_TO_HOST
) -> NodeState:
    context = PlanContext(
        HERE,
        NodeNetwork(("10.100.0.2",), ("10.100.0.2",)),
        mode,
        range(10400, 18400),
        udp_idle=45.0,
        fall_open=False,
    )
    snapshot = Snapshot({service.name: service}, {service.name: endpoints})
    state, problems = Planner(PortBook(context.ports)).wanted(snapshot, context, NodeState())
    assert problems == ()
    return state


def served(service: ServicePort, endpoints: tuple[Endpoint, ...] = ready(POD1, POD2)) -> Serve:
    return wanted(service, endpoints).serves[PoolName.of(service.name)]


def test_it_is_served_by_a_guarded_listener_as_tcp_is_and_its_flows_may_lead_nowhere_else() -> None:
    state = wanted(ECHO, ready(POD1, POD2))
    serve = state.serves[PoolName.of(ECHO.name)]
    assert (serve.protocol, serve.listener) == (Protocol.UDP, LISTENER)
    assert [backend.address for backend in serve.backends] == [POD1, POD2]
    assert state.captures == {CLUSTER_IP: ToListener(LISTENER)}
    assert state.flows == {CLUSTER_IP: (LISTENER,)}
    assert state.guards.keys() == {Frontend(Protocol.UDP, LISTENER)}


def test_without_backends_the_kernel_refuses_also_those_who_have_been_served_so_far() -> None:
    state = wanted(ECHO, ())
    assert state.captures == {CLUSTER_IP: Refuse()}
    assert state.flows == {CLUSTER_IP: ()}, "nobody's flow is spared: each packet is a new one, and refused"


def test_each_policy_has_a_listener_and_flows_of_its_own() -> None:
    service = msgspec.structs.replace(
        ECHO, entries=(*ECHO.entries, NODE_PORT), external_traffic_policy=TrafficPolicy.LOCAL
    )
    state = wanted(service, ready(POD1))
    local = state.serves[PoolName.of(service.name, TrafficPolicy.LOCAL)].listener
    outside = Frontend(Protocol.UDP, Address("10.100.0.2", 30500), outside=True)
    assert local != state.serves[PoolName.of(service.name)].listener
    assert state.flows[outside] == (local,)


def test_a_node_port_on_loopback_is_relayed_on_the_path_to_pods_too() -> None:
    service = msgspec.structs.replace(ECHO, entries=(*ECHO.entries, NODE_PORT))
    state = wanted(service, ready(POD1), Path.REDIRECT_TO_POD)
    loopback = Frontend(Protocol.UDP, Address("127.0.0.1", 30500))
    assert state.captures[loopback] == ToListener(LISTENER)
    assert state.captures[CLUSTER_IP] == ToPods((POD1,))
    assert state.flows == {
        CLUSTER_IP: (POD1,),
        Frontend(Protocol.UDP, Address("10.100.0.2", 30500)): (POD1,),
        loopback: (LISTENER,),
    }


def test_a_client_may_stay_with_a_pod_that_still_serves_and_not_with_another() -> None:
    endpoints = (
        *ready(POD1),
        Endpoint(address=POD2, ready=False, terminating=True),
        Endpoint(address=POD3, ready=False, serving=False, terminating=True),
        Endpoint(address=POD4, drained=True),
    )
    assert served(ECHO, endpoints).leaving == (POD2,)


def test_its_pods_are_not_checked_as_nobody_knows_what_they_would_answer_to() -> None:
    settings = Settings(check=Check(kind=HealthCheck.TCP), slow_start=5.0)
    serve = served(msgspec.structs.replace(ECHO, settings=settings))
    assert serve.settings == Settings(check=Check(kind=HealthCheck.OFF), slow_start=5.0)


def test_how_long_a_session_may_be_idle_is_the_service_s_choice_or_else_the_daemon_s() -> None:
    assert served(ECHO).idle == 45.0
    assert served(msgspec.structs.replace(ECHO, settings=Settings(udp_idle=5.0))).idle == 5.0


@pytest.mark.parametrize(
    ("name", "number", "short"),
    [("", 53, True), ("dns", 99, True), ("dns-udp", 99, True), ("cdns", 99, False), ("log", 514, False)],
)
def test_sessions_are_short_where_each_question_has_one_answer(name: str, number: int, short: bool) -> None:
    service = msgspec.structs.replace(
        ECHO,
        name=ServicePortName("default", "echo", name),
        entries=cluster_ips(Address("10.3.0.1", number)),
    )
    assert served(service).short is short
