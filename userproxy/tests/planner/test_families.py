"""Services of both families, on nodes of both and of one."""

from __future__ import annotations

import pytest

from userproxy.model.address import Address, IpFamily
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
from userproxy.model.snapshot import Node
from userproxy.model.state import Frontend, Target, ToListener, ToPods
from userproxy.planner.context import PlanContext
from userproxy.planner.outcome import Outcome, Traffic
from userproxy.planner.paths import PATHS

WEB = ServicePortName("default", "web")
IPV4, IPV6 = IpFamily
HOST = {IPV4: "10.100.0.2", IPV6: "fd00::2"}
CLUSTER_IP = {IPV4: Address("10.3.0.1", 80), IPV6: Address("fd00:3::1", 80)}
NODE_PORT = {IPV4: Address("10.100.0.2", 30080), IPV6: Address("fd00::2", 30080)}
LOOPBACK = {IPV4: Address("127.0.0.1", 30080), IPV6: Address("::1", 30080)}
ANY = {IPV4: Address("0.0.0.0", 30080), IPV6: Address("::", 30080)}  # noqa: S104 - any address
POD = {IPV4: Address("10.0.1.2", 8080), IPV6: Address("fd00:1::2", 8080)}
LISTENER = {IPV4: Address("10.100.0.2", 10400), IPV6: Address("fd00::2", 10401)}
PORTS = {PoolName.of(WEB, family=family): LISTENER[family].port for family in IpFamily}
ENDPOINTS = tuple(Endpoint(address=POD[family], node="host1") for family in IpFamily)


def tcp(address: Address) -> Frontend:
    return Frontend(Protocol.TCP, address)


def service(path: Path, *families: IpFamily, protocol: Protocol = Protocol.TCP) -> ServicePort:
    """A Service port with a cluster IP and a node port of each of these families."""
    entries = [Entry(EntryKind.CLUSTER_IP, CLUSTER_IP[family]) for family in families]
    entries += [Entry(EntryKind.NODE_PORT, ANY[family]) for family in families]
    return ServicePort(name=WEB, protocol=protocol, entries=tuple(entries), path=path)


def outcome(made: ServicePort, *families: IpFamily) -> Outcome:
    """What it comes to on a node with addresses of these families."""
    host_ips = tuple(HOST[family] for family in families)
    assert made.path is not None
    context = PlanContext(
        Node("host1"), NodeNetwork(host_ips, host_ips), made.path, range(10400, 10410), fall_open=False
    )
    return PATHS[made.path].outcome_of(Traffic(made, ENDPOINTS, PORTS, context))


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize("family", list(IpFamily))
def test_a_family_leads_to_endpoints_of_its_own(path: Path, family: IpFamily) -> None:
    made = outcome(service(path, *IpFamily), *IpFamily)
    target: Target = ToPods((POD[family],), steered=path is Path.STEERED)
    if path is Path.REDIRECT_TO_HOST:
        target = ToListener(LISTENER[family])
    assert made.captures[tcp(CLUSTER_IP[family])] == target
    assert made.captures[tcp(LOOPBACK[family])] == ToListener(LISTENER[family]), "on every path"
    pool = PoolName.of(WEB, family=family)
    assert made.serves[pool].listener == LISTENER[family]
    assert [backend.address for backend in made.serves[pool].backends] == [POD[family]]
    assert {made.pools[tcp(entry[family])] for entry in (CLUSTER_IP, NODE_PORT, LOOPBACK)} == {pool}
    assert tcp(LISTENER[family]) in made.guards
    assert made.problems == ()


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize("family", list(IpFamily))
def test_a_node_of_one_family_serves_that_one_and_has_nothing_to_say(path: Path, family: IpFamily) -> None:
    both, single = outcome(service(path, *IpFamily), family), outcome(service(path, family), *IpFamily)
    assert both.captures == single.captures
    assert both.serves == single.serves
    assert both.checked == single.checked
    assert both.cluster_ips == single.cluster_ips == (CLUSTER_IP[family].ip,)
    assert {key.address.family for key in both.captures} == {family}
    assert both.problems == single.problems == ()


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize(("family", "other"), [(IPV4, IPV6), (IPV6, IPV4)])
def test_a_service_of_the_other_family_is_told(path: Path, family: IpFamily, other: IpFamily) -> None:
    made = outcome(service(path, other), family)
    assert (made.captures, made.serves, made.cluster_ips) == ({}, {}, ())
    (problem,) = made.problems
    assert problem.reason == "AddressFamilyNotSupported"
    assert f"{CLUSTER_IP[other]} is not served, as this node has no {other} address" in problem.message


@pytest.mark.parametrize("family", list(IpFamily))
def test_flows_of_udp_lead_to_pods_of_their_family(family: IpFamily) -> None:
    made = outcome(service(Path.REDIRECT_TO_POD, *IpFamily, protocol=Protocol.UDP), *IpFamily)
    assert made.flows[Frontend(Protocol.UDP, CLUSTER_IP[family])] == (POD[family],)


@pytest.mark.parametrize("policy", list(TrafficPolicy))
@pytest.mark.parametrize("family", list(IpFamily))
def test_a_pool_is_known_by_its_text(policy: TrafficPolicy, family: IpFamily) -> None:
    for name in (WEB, ServicePortName("default", "web", "http")):
        pool = PoolName.of(name, policy, family)
        assert PoolName.parse(str(pool)) == pool
    assert len({str(pool) for pool in PoolName.all_of(WEB)}) == 4
    assert str(PoolName.of(WEB)) == "default/web"
    assert str(PoolName.of(WEB, TrafficPolicy.LOCAL, IPV6)) == "default/web/local/ipv6"
