"""What load balancers are told of the endpoints on this node."""

from __future__ import annotations

import msgspec

from userproxy.model.address import Address, IpFamily
from userproxy.model.endpoint import Endpoint
from userproxy.model.service import Protocol, ServicePort, ServicePortName
from userproxy.model.snapshot import Node, Snapshot
from userproxy.planner.local_endpoints import LocalEndpointCounter, LocalEndpoints
from userproxy.tests.services import cluster_ips

HERE = Node("host1")
HTTP, HTTPS = (ServicePortName("default", "web", port) for port in ("http", "https"))


def port(name: ServicePortName, health_check_port: int | None = 32100) -> ServicePort:
    vip = cluster_ips(Address("10.3.0.1", 80))
    return ServicePort(name=name, protocol=Protocol.TCP, entries=vip, health_check_port=health_check_port)


def pod(number: int, node: str = "host1", target: int = 8080, **conditions: bool) -> Endpoint:
    return Endpoint(address=Address(f"10.0.1.{number}", target), node=node, **conditions)  # type: ignore[arg-type]


WEB = Snapshot(
    {HTTP: port(HTTP), HTTPS: port(HTTPS)},
    {
        HTTP: (pod(1), pod(2), pod(3, "host2"), pod(4, ready=False)),
        HTTPS: (pod(1, target=8443), pod(2, target=8443), pod(5, target=8443, drained=True)),
    },
)


def test_each_address_that_is_ready_here_counts_once() -> None:
    counts = LocalEndpointCounter().observe(WEB, HERE)
    assert counts == {32100: LocalEndpoints("default", "web", {IpFamily.IPV4: 2})}


def test_each_family_is_counted_by_itself() -> None:
    pods = (pod(1), *(Endpoint(address=Address(f"fd00::{each}", 8080), node="host1") for each in (1, 2, 3)))
    counts = LocalEndpointCounter().observe(Snapshot({HTTP: port(HTTP)}, {HTTP: pods}), HERE)
    assert counts[32100].local == {IpFamily.IPV4: 1, IpFamily.IPV6: 3}


def test_services_that_nobody_asks_for_are_left_out() -> None:
    silent = msgspec.structs.replace(WEB, services={HTTP: port(HTTP, None)})
    assert LocalEndpointCounter().observe(silent, HERE) == {}


def test_what_does_not_matter_changes_nothing() -> None:
    counter = LocalEndpointCounter()
    counts = counter.observe(WEB, HERE)
    other = ServicePortName("default", "other")
    more = msgspec.structs.replace(WEB, endpoints={**WEB.endpoints, other: (pod(9),)})
    assert counter.observe(more, HERE) is counts
    fewer = msgspec.structs.replace(more, endpoints={**more.endpoints, HTTP: (), HTTPS: (pod(1),)})
    assert counter.observe(fewer, HERE)[32100].local == {IpFamily.IPV4: 1}
    assert counter.observe(fewer, Node("host2"))[32100].local == {}
    assert counter.observe(Snapshot({}, {}), HERE) == {}


def test_of_two_services_with_one_port_the_first_by_name_is_told_and_the_other_hears_of_it() -> None:
    other = ServicePortName("default", "zebra", "http")
    both = Snapshot({other: port(other), **WEB.services}, {other: (pod(8), pod(9), pod(10)), **WEB.endpoints})
    counter = LocalEndpointCounter()
    assert counter.observe(both, HERE) == {32100: LocalEndpoints("default", "web", {IpFamily.IPV4: 2})}
    (problem,) = counter.conflicts
    assert (problem.about, problem.reason) == ("default/zebra", "PortConflict")
    assert "healthCheckNodePort 32100 belongs to default/web" in problem.message
    assert counter.observe(WEB, HERE)[32100].local == {IpFamily.IPV4: 2}
    assert counter.conflicts == ()
