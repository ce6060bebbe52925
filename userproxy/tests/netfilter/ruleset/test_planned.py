"""A Service as it is planned, and every packet to its entries: plan and rules together, without a kernel."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

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
from userproxy.model.snapshot import Node
from userproxy.model.state import NodeState, Perimeter
from userproxy.netfilter.ruleset.chains import STATUS_DNAT, TCP, UDP
from userproxy.planner.context import PlanContext
from userproxy.planner.outcome import Traffic
from userproxy.planner.paths import PATHS
from userproxy.tests.entries import ENTRIES, PODS_OF, POLICIES, Asked, Outcome, combinations, outcome_of
from userproxy.tests.netfilter.ruleset.tracer import Kernel, Packet

WEB = ServicePortName("default", "web")
HOST, LISTEN_ON = "10.100.0.2", {TrafficPolicy.CLUSTER: 10400, TrafficPolicy.LOCAL: 10401}
PODS = {"here": Address("10.0.1.2", 8080), "elsewhere": Address("10.0.2.2", 8080)}
ADDRESSES = {
    "cluster IP": Address("10.3.240.1", 80),
    "node port": Address(HOST, 30080),
    "external IP": Address("192.0.2.1", 80),
    "load balancer IP": Address("192.0.2.2", 80),
}
ASKERS = {
    "pod": (Packet(source="10.0.1.3", device="cbr0", destination=PODS["here"]), "prerouting"),
    "host": (Packet(source=HOST, destination=PODS["here"]), "output"),
    "outside": (Packet(source="10.100.0.1", device="eth0", destination=PODS["here"]), "prerouting"),
}
WAYS = list(itertools.product(Path, (Protocol.TCP, Protocol.UDP)))


def planned(
    path: Path, protocol: Protocol, policy: str, endpoints: str
) -> tuple[NodeState, dict[int, set[str]]]:
    """What is captured, and which pods are behind each listener."""
    entries = zip(EntryKind, ADDRESSES.values(), strict=True)
    service = ServicePort(
        name=WEB,
        protocol=protocol,
        entries=tuple(Entry(kind, address) for kind, address in entries),
        internal_traffic_policy=TrafficPolicy(policy),
        external_traffic_policy=TrafficPolicy(policy),
        path=path,
    )
    there = [
        Endpoint(address=PODS[pod], node={"here": "host1"}.get(pod, "host2")) for pod in PODS_OF[endpoints]
    ]
    ports = {PoolName.of(WEB, each): port for each, port in LISTEN_ON.items()}
    network = NodeNetwork((HOST,), (HOST,), uplinks=("eth0",))
    context = PlanContext(Node("host1"), network, path, range(10400, 10410), closed=True)
    made = PATHS[path].outcome_of(Traffic(service, tuple(there), ports, context))
    perimeter = Perimeter(uplinks=("eth0",), inside=("10.0.0.0/14",))
    state = NodeState(
        captures=made.captures, cluster_ips=dict.fromkeys(made.cluster_ips), perimeter=perimeter
    )
    names = {address: pod for pod, address in PODS.items()}
    behind = {
        serve.listener.port: {names[backend.address] for backend in serve.backends}
        for serve in made.serves.values()
    }
    return state, behind


def walk(kernel: Kernel, asked: Asked, protocol: Protocol) -> tuple[str, Packet]:
    """The verdict, and the packet as it leaves the node or gets to a listener."""
    packet, hook = ASKERS[asked.asker]
    number = TCP if protocol is Protocol.TCP else UDP
    packet = replace(packet, destination=ADDRESSES[asked.entry], protocol=number)
    verdict, sent = kernel.send(packet, hook)
    if verdict == "accept" and sent.status & STATUS_DNAT:
        verdict, sent = kernel.send(sent, "input" if sent.destination.ip == HOST else "postrouting")
    return verdict, sent


def found(state: NodeState, behind: dict[int, set[str]], asked: Asked, protocol: Protocol) -> Outcome:
    """What comes of it, whatever is drawn."""
    names = {address: pod for pod, address in PODS.items()}
    walks = [walk(Kernel(state, draw), asked, protocol) for draw in (0, 1)]
    ends = {verdict for verdict, _ in walks}
    pods: set[str] = set()
    for verdict, sent in walks:
        if verdict in ("accept", "masquerade fully-random"):
            pods |= (
                behind[sent.destination.port] if sent.destination.ip == HOST else {names[sent.destination]}
            )
    refusal = "reject with tcp reset" if protocol is Protocol.TCP else "reject"
    return Outcome(frozenset(pods), ends == {refusal}, ends == {"masquerade fully-random"}, "")


def test_the_table_has_each_combination_once() -> None:
    assert len(combinations()) == 2 * 4 * 3 * 4
    assert all(outcome_of(asked).why for asked in combinations())
    assert tuple(ADDRESSES) == ENTRIES


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("endpoints", PODS_OF)
def test_every_entry_from_everywhere(way: tuple[Path, Protocol], policy: str, endpoints: str) -> None:
    path, protocol = way
    state, behind = planned(path, protocol, policy, endpoints)
    for asked in combinations():
        if asked.policy == policy and asked.endpoints == endpoints:
            wanted = outcome_of(asked)._replace(why="")
            if path is Path.REDIRECT_TO_HOST:
                wanted = wanted._replace(as_node=False)  # no packet of the client's gets to a pod
            assert found(state, behind, asked, protocol) == wanted, asked


@pytest.mark.parametrize("protocol", list(Protocol)[:2])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_pod_that_reaches_itself_sees_the_node(protocol: Protocol, entry: str) -> None:
    state, _ = planned(Path.REDIRECT_TO_POD, protocol, "Cluster", "here")
    number = TCP if protocol is Protocol.TCP else UDP
    packet = Packet(source=PODS["here"].ip, device="cbr0", destination=ADDRESSES[entry], protocol=number)
    verdict, sent = Kernel(state).send(packet, "prerouting", "postrouting")
    assert (verdict, sent.destination) == ("masquerade", PODS["here"])
