"""Who asks at which address of a Service, and which pods answer."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from integration.services import problems
from integration.sockets import PATIENCE_SECONDS
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import HOST1, HOST2, SERVER1, SERVER2
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.lab.objects import Object, ServiceSpec

NODE_PORT = 30080
HEALTH_PORT = 32080
CLUSTER_IPS = (Address("10.3.240.1", 80), Address("fd00:10:3:240::1", 80))
NODE_PORTS = (Address(HOST1.ip, NODE_PORT), Address(HOST1.ip6, NODE_PORT))
EXTERNAL_IPS = (Address("192.0.2.1", 80), Address("2001:db8::1", 80))
LOAD_BALANCER_IPS = (Address("192.0.2.2", 80), Address("2001:db8::2", 80))
LOOPBACKS = (Address("127.0.0.1", NODE_PORT), Address("::1", NODE_PORT))
ENTRIES = {
    f"{name}-{address.family}": address
    for name, addresses in (
        ("cluster IP", CLUSTER_IPS),
        ("node port", NODE_PORTS),
        ("external IP", EXTERNAL_IPS),
        ("load balancer IP", LOAD_BALANCER_IPS),
    )
    for address in addresses
}
FROM_OUTSIDE = {name: address for name, address in ENTRIES.items() if address not in CLUSTER_IPS}
STRANGERS = ["203.0.113.0/24", "2001:db8:1::/48"]
BOTH = {"server1", "server2"}

_NO_DAD = {False: (), True: ("nodad",)}  # an IPv6 address is used at once

OFTEN = 24
"""So many requests, at random, miss one of two pods once in 8 million times."""


class Answer(NamedTuple):
    """Which pod answered, and whom it saw."""

    pod: str
    client: str


def ask(lab: Lab, member: str, address: Address, times: int = 1) -> list[Answer]:
    """Who answers these requests, each on a connection of its own."""
    urls = [f"http://{address}/"] * times
    done = lab.exec(member, "curl", "-sS", "--max-time", "3", "-H", "Connection: close", *urls, check=False)
    told = re.findall(r"^(\w+) answers (\S+)$", done.stdout, re.MULTILINE)
    return [Answer(pod, Address.parse(client).ip) for pod, client in told]


def pods_at(lab: Lab, member: str, address: Address) -> set[str]:
    """The pods that answer, of many requests; empty if nobody does."""
    if not ask(lab, member, address):
        return set()
    answers = ask(lab, member, address, OFTEN)
    assert len(answers) == OFTEN, "some are answered, and some are not"
    return {answer.pod for answer in answers}


def web(pods: Sequence[str], **spec: object) -> list[Object]:
    """A Service of both families with a load balancer, every kind of address, and pods on both nodes."""
    external = [address.ip for address in EXTERNAL_IPS]
    fields: ServiceSpec = {"type": "LoadBalancer", "externalIPs": external, **spec}  # type: ignore[typeddict-item]
    service = objects.service(
        "web",
        [address.ip for address in CLUSTER_IPS],
        [Port(80, 8080, node_port=NODE_PORT)],
        ingress=[{"ip": address.ip} for address in LOAD_BALANCER_IPS],
        **fields,
    )
    where = {"server1": (SERVER1, HOST1.name), "server2": (SERVER2, HOST2.name)}
    chosen = [where[pod] for pod in pods]
    by_family = (
        [objects.endpoint(pod.ip, node) for pod, node in chosen],
        [objects.endpoint(pod.ip6, node) for pod, node in chosen],
    )
    slices = (
        objects.endpoint_slice(f"web-{number}", "web", [Port(80, 8080)], endpoints)
        for number, endpoints in enumerate(by_family)
    )
    return [service, *slices]


@contextlib.contextmanager
def published(lab: Lab, pods: Sequence[str] = ("server1", "server2"), **spec: object) -> Iterator[None]:
    """The Service for the time of the block, from when every entry is there."""
    lab.write_manifest("web.json", json.dumps(objects.listed(web(pods, **spec))))
    wait_until("web is served", lambda: len(_frontends(lab)) >= len(ENTRIES), PATIENCE_SECONDS)
    try:
        yield
    finally:
        lab.remove_manifest("web.json")
        wait_until("web is gone", lambda: not _frontends(lab), PATIENCE_SECONDS)


def _gateways(lab: Lab) -> tuple[str, str]:
    return lab.deployment.gateway_ip, lab.deployment.gateway_ip6


def _frontends(lab: Lab) -> Sequence[str]:
    with AdminClient(lab.admin_socket("host1")) as admin:
        found = [row for row in admin.services() if row.service == "default/web"]
    return [frontend for row in found for frontend in row.frontends]


@pytest.mark.parametrize("member", ["client", "host1"])
@pytest.mark.parametrize("address", ENTRIES.values(), ids=ENTRIES)
def test_pods_and_the_node_reach_every_pod_at_every_entry(lab: Lab, member: str, address: Address) -> None:
    with published(lab):
        assert pods_at(lab, member, address) == BOTH
    assert ask(lab, member, address) == [], "it is gone"


@pytest.mark.parametrize("address", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_clients_from_outside_reach_every_pod_where_the_service_is_open_to_them(
    lab: Lab, address: Address
) -> None:
    with published(lab):
        assert pods_at(lab, "gateway", address) == BOTH


def test_cluster_ips_are_closed_to_clients_from_outside(lab: Lab) -> None:
    with published(lab):
        for address in CLUSTER_IPS:
            assert pods_at(lab, "gateway", address) == set()
            assert pods_at(lab, "client", address) == BOTH


def test_node_ports_answer_at_loopback_too(lab: Lab) -> None:
    with published(lab):
        for address in LOOPBACKS:
            assert pods_at(lab, "host1", address) == BOTH


@pytest.mark.parametrize("address", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_with_the_policy_local_clients_from_outside_reach_pods_of_this_node_alone(
    lab: Lab, address: Address
) -> None:
    with published(lab, externalTrafficPolicy="Local"):
        assert pods_at(lab, "gateway", address) == {"server1"}
        assert pods_at(lab, "client", address) == BOTH, "pods are not from outside"
        assert pods_at(lab, "host1", address) == BOTH, "nor is the node"


@pytest.mark.parametrize("address", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_with_the_policy_local_and_no_pod_here_clients_from_outside_reach_nobody(
    lab: Lab, address: Address
) -> None:
    with published(lab, ["server2"], externalTrafficPolicy="Local"):
        assert pods_at(lab, "gateway", address) == set()
        assert pods_at(lab, "client", address) == {"server2"}


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_a_pod_of_another_node_reaches_a_pod_beside_it_by_way_of_this_one(lab: Lab, policy: str) -> None:
    """The answer has to come this way too, though there is a shorter one."""
    beside = "10.0.2.9/24", "fd00:10:0:2::9/64"  # server2 is two pods for the time of the test
    for network in beside:
        lab.exec("server2", "ip", "address", "add", network, "dev", "eth0", *_NO_DAD[":" in network])
    try:
        with published(lab, ["server2"], externalTrafficPolicy=policy):
            asked = ("curl", "-sS", "--max-time", "3", "--interface")
            done = [
                lab.exec("server2", *asked, network.partition("/")[0], f"http://{address}/", check=False)
                for network, address in zip(beside, NODE_PORTS, strict=True)
            ]
    finally:
        for network in beside:
            lab.exec("server2", "ip", "address", "delete", network, "dev", "eth0")
    assert done[0].stdout.startswith(f"server2 answers {HOST1.ip}:"), done[0].stderr
    assert done[1].stdout.startswith(f"server2 answers [{HOST1.ip6}]:"), done[1].stderr


def test_with_the_internal_policy_local_pods_reach_those_of_this_node_alone(lab: Lab) -> None:
    with published(lab, internalTrafficPolicy="Local"):
        for address, node_port in zip(CLUSTER_IPS, NODE_PORTS, strict=True):
            assert pods_at(lab, "client", address) == {"server1"}
            assert pods_at(lab, "gateway", node_port) == BOTH


def test_on_the_path_to_pods_a_local_pod_sees_who_asks(lab: Lab) -> None:
    with published(lab, externalTrafficPolicy="Local"):
        with AdminClient(lab.admin_socket("host1")) as admin:
            path = next(row.path for row in admin.services() if row.service == "default/web")
        for address, gateway in zip(NODE_PORTS, _gateways(lab), strict=True):
            (answer,) = ask(lab, "gateway", address)
            assert (answer.client == gateway) == (path == "redirect-to-pod")


@pytest.mark.parametrize("address", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_a_load_balancer_s_source_ranges_hold_at_its_address_alone(lab: Lab, address: Address) -> None:
    with published(lab, loadBalancerSourceRanges=STRANGERS):
        admitted = set() if address in LOAD_BALANCER_IPS else BOTH
        assert pods_at(lab, "gateway", address) == admitted
    with published(lab, loadBalancerSourceRanges=[*STRANGERS, *_gateways(lab)]):
        assert pods_at(lab, "gateway", address) == BOTH


@pytest.mark.parametrize("member", ["client", "host1", "gateway"])
def test_a_client_keeps_its_pod_at_every_entry(lab: Lab, member: str) -> None:
    entries = FROM_OUTSIDE if member == "gateway" else ENTRIES
    with published(lab, sessionAffinity="ClientIP"):
        for address in entries.values():
            assert len(pods_at(lab, member, address)) == 1


def test_load_balancers_are_told_of_pods_on_this_node(lab: Lab) -> None:
    def told_at(ip: str) -> tuple[str, object]:
        url = f"http://{Address(ip, HEALTH_PORT)}/"
        done = lab.exec("gateway", "curl", "-sS", "--max-time", "1", "-w", "\n%{http_code}", url, check=False)
        body, _, code = done.stdout.rpartition("\n")
        return code, json.loads(body)["localEndpoints"] if body else None

    def told() -> tuple[str, object] | None:
        one, other = told_at(HOST1.ip), told_at(HOST1.ip6)
        return one if one == other else None

    policy: dict[str, Any] = {"externalTrafficPolicy": "Local", "healthCheckNodePort": HEALTH_PORT}
    with published(lab, **policy):
        wait_until("load balancers are told of server1", lambda: told() == ("200", 1), PATIENCE_SECONDS)
    with published(lab, ["server2"], **policy):
        wait_until("load balancers are told to stay away", lambda: told() == ("503", 0), PATIENCE_SECONDS)
    wait_until("nobody answers them", lambda: told() == ("000", None), PATIENCE_SECONDS)


def test_nothing_is_reported_of_it(lab: Lab) -> None:
    with published(lab):
        assert problems(lab) == ()
