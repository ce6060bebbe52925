"""UDP clients are answered at every entry of a Service, from the address that they asked, at any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.services import problems
from integration.udp.servers import LARGEST, ask, client, echoes, serving
from integration.udp.services import (
    CLUSTER_IP,
    CLUSTER_IP6,
    EXTERNAL_IP,
    EXTERNAL_IP6,
    LOAD_BALANCER_IP,
    LOAD_BALANCER_IP6,
    LOOPBACK,
    LOOPBACK6,
    NODE_PORT,
    NODE_PORT6,
    SECOND_NODE_PORT,
    publish,
    published,
)
from userproxy.lab.topology import HOST1
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

ENTRIES = {
    "cluster IP": CLUSTER_IP,
    "node port": NODE_PORT,
    "node port at another address": SECOND_NODE_PORT,
    "external IP": EXTERNAL_IP,
    "load balancer IP": LOAD_BALANCER_IP,
    "cluster IP of IPv6": CLUSTER_IP6,
    "node port of IPv6": NODE_PORT6,
    "external IP of IPv6": EXTERNAL_IP6,
    "load balancer IP of IPv6": LOAD_BALANCER_IP6,
}
EVERYBODY = [
    *((member, address) for member in ("client", "host1") for address in ENTRIES.values()),
    *(("gateway", address) for name, address in ENTRIES.items() if not name.startswith("cluster IP")),
    ("host1", LOOPBACK),
    ("host1", LOOPBACK6),
]
PODS = ("server1", "server2")
SIZES = (0, 1, 512, 1472, 1473, 4097, 9000, LARGEST)


@pytest.mark.parametrize(("member", "address"), EVERYBODY)
def test_whole_datagrams_go_both_ways_and_a_client_stays_with_its_pod(
    lab: Lab, member: str, address: Address
) -> None:
    with serving(lab, PODS), published(lab, "echo", PODS):
        for _ in range(2):
            with client(lab, member, address) as sock:
                first = ask(sock)
                node = (HOST1.ip, HOST1.bridge_ip, HOST1.ip6, HOST1.bridge_ip6)
                assert Address.parse(first[1]).ip in node, "the pod sees the node"
                assert all(echoes(sock, size) for size in SIZES)
                assert ask(sock) == first, "the same pod sees the same client"


def test_clients_are_spread_over_the_pods(lab: Lab) -> None:
    with serving(lab, PODS), published(lab, "echo", PODS):
        served = []
        for _ in range(10):
            with client(lab, "client", CLUSTER_IP) as sock:
                served.append(ask(sock)[0])
        assert sorted(served) == ["server1"] * 5 + ["server2"] * 5


def test_with_affinity_all_ports_of_a_client_have_one_pod_at_every_entry(lab: Lab) -> None:
    with serving(lab, PODS), published(lab, "echo", PODS, sessionAffinity="ClientIP"):
        served = set()
        for address in ENTRIES.values():
            for _ in range(3):
                with client(lab, "client", address) as sock:
                    served.add((address.family, ask(sock)[0]))
        assert len(served) == 2, "one in each family"


def test_with_the_policy_local_clients_from_outside_have_pods_of_this_node_alone(lab: Lab) -> None:
    with serving(lab, PODS), published(lab, "echo", PODS, externalTrafficPolicy="Local"):
        of_ipv6 = (NODE_PORT6, EXTERNAL_IP6, LOAD_BALANCER_IP6)
        for address in (NODE_PORT, EXTERNAL_IP, LOAD_BALANCER_IP, *of_ipv6):
            for _ in range(4):
                with client(lab, "gateway", address) as sock:
                    assert ask(sock)[0] == "server1"


def test_source_ranges_hold_at_the_load_balancer_s_address(lab: Lab) -> None:
    with serving(lab, PODS), published(lab, "echo", PODS, loadBalancerSourceRanges=["203.0.113.0/24"]):
        for external, balanced in ((EXTERNAL_IP, LOAD_BALANCER_IP), (EXTERNAL_IP6, LOAD_BALANCER_IP6)):
            with client(lab, "gateway", external) as sock:
                assert ask(sock)[0] in PODS
            with client(lab, "gateway", balanced) as sock:
                sock.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    ask(sock)


@pytest.mark.parametrize("address", [CLUSTER_IP, CLUSTER_IP6])
def test_without_endpoints_the_kernel_refuses_also_a_client_that_was_served(
    lab: Lab, address: Address
) -> None:
    with serving(lab, PODS), published(lab, "echo", PODS), client(lab, "client", address) as sock:
        ask(sock)
        publish(lab, "echo", [])
        sock.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(100)
        publish(lab, "echo", PODS)
        assert ask(sock)[0] in PODS


@pytest.mark.parametrize(("member", "address"), EVERYBODY)
def test_on_the_path_to_pods_every_entry_answers_too(lab: Lab, member: str, address: Address) -> None:
    to_pod = {"path": "redirect-to-pod"}
    with serving(lab, PODS), published(lab, "echo", PODS, to_pod), client(lab, member, address) as sock:
        first = ask(sock)
        assert all(echoes(sock, size) for size in SIZES)
        assert ask(sock) == first


def test_nothing_is_reported_of_it(lab: Lab) -> None:
    with published(lab, "echo", PODS):
        assert problems(lab) == ()
