"""A Service as it is planned, in both families, and every packet to its entries: without a kernel."""

from __future__ import annotations

import itertools
from typing import TypeVar

import pytest
from msgspec.structs import replace

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
from userproxy.model.state import NodeState, Perimeter
from userproxy.netfilter.ruleset.chains import STATUS_DNAT
from userproxy.netfilter.ruleset.language import TCP, UDP
from userproxy.netfilter.trace.walk import Packet
from userproxy.planner.context import PlanContext
from userproxy.planner.outcome import Traffic
from userproxy.planner.paths import PATHS
from userproxy.tests.entries import ENTRIES, PODS_OF, POLICIES, Outcome, combinations, outcome_of
from userproxy.tests.netfilter.ruleset.tracer import Kernel
from userproxy.tests.twins import twin

WEB = ServicePortName("default", "web")
HOST = "10.100.0.2"
HOSTS = {IpFamily.IPV4: HOST, IpFamily.IPV6: twin(HOST)}
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
WORKERS = 2

T = TypeVar("T", Address, Packet)


@pytest.fixture(params=list(IpFamily))
def family(request: pytest.FixtureRequest) -> IpFamily:
    """Of the packets; the Service has both, where other tests of the rules have the twins of one."""
    return IpFamily(request.param)


def in_family(value: T, family: IpFamily) -> T:
    """It, or its twin."""
    ipv6: T = twin(value)
    return ipv6 if family is IpFamily.IPV6 else value


def planned(
    path: Path, protocol: Protocol, policy: str, endpoints: str
) -> tuple[NodeState, dict[Address, set[Address]]]:
    """What is captured, and which pods are behind each listener."""
    entries = tuple(Entry(kind, address) for kind, address in zip(EntryKind, ADDRESSES.values(), strict=True))
    service = ServicePort(
        name=WEB,
        protocol=protocol,
        entries=(*entries, *twin(entries)),
        internal_traffic_policy=TrafficPolicy(policy),
        external_traffic_policy=TrafficPolicy(policy),
        path=path,
    )
    there = tuple(
        Endpoint(address=PODS[pod], node={"here": "host1"}.get(pod, "host2")) for pod in PODS_OF[endpoints]
    )
    pools = (PoolName.of(WEB, *each) for each in itertools.product(TrafficPolicy, IpFamily))
    ports = dict(zip(pools, range(10400, 10404), strict=True))
    hosts = tuple(HOSTS.values())
    network = NodeNetwork(hosts, hosts, uplinks=("eth0",))
    context = PlanContext(Node("host1"), network, path, range(10400, 10410), closed=True)
    made = PATHS[path].outcome_of(Traffic(service, (*there, *twin(there)), ports, context))
    inside = "10.0.0.0/14"
    perimeter = Perimeter(uplinks=("eth0",), inside=(inside, twin(inside)))
    state = NodeState(
        captures=made.captures,
        guards=dict.fromkeys(made.guards),
        cluster_ips=dict.fromkeys(made.cluster_ips),
        perimeter=perimeter,
        workers=WORKERS,
    )
    behind = {
        serve.listener: {backend.address for backend in serve.backends} for serve in made.serves.values()
    }
    return state, behind


MASQUERADES = {"masquerade", "masquerade fully-random"}


def sent_by(asker: str, entry: str, protocol: Protocol, family: IpFamily) -> tuple[Packet, str]:
    """Who asks what, and the hook where the packet begins."""
    packet, hook = ASKERS[asker]
    number = TCP if protocol is Protocol.TCP else UDP
    packet = replace(packet, destination=ADDRESSES[entry], protocol=number)
    return in_family(packet, family), hook


def walk(kernel: Kernel, packet: Packet, hook: str) -> tuple[str, Packet]:
    """The verdict, and the packet as it leaves the node or gets to a listener."""
    verdict, sent = kernel.send(packet, hook)
    if verdict == "accept" and sent.status & STATUS_DNAT:
        here = sent.destination.ip in HOSTS.values()
        verdict, sent = kernel.send(sent, "input" if here else "postrouting")
    return verdict, sent


def found(
    kernels: list[Kernel], behind: dict[Address, set[Address]], asked: tuple[Packet, str], family: IpFamily
) -> Outcome:
    """What comes of it, whatever is drawn."""
    walks = [walk(kernel, *asked) for kernel in kernels]
    ends = {verdict for verdict, _ in walks}
    reached: set[Address] = set()
    for verdict, sent in walks:
        if verdict in ("accept", *MASQUERADES):
            reached |= behind.get(sent.destination, {sent.destination})
    names = {in_family(address, family): pod for pod, address in PODS.items()}
    refusal = "reject with tcp reset" if asked[0].protocol == TCP else "reject"
    return Outcome(
        frozenset(names[address] for address in reached),
        ends == {refusal},
        ends <= MASQUERADES,
        "",
    )


def test_the_table_has_each_combination_once() -> None:
    assert len(combinations()) == 2 * 4 * 3 * 4
    assert all(outcome_of(asked).why for asked in combinations())
    assert tuple(ADDRESSES) == ENTRIES


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("endpoints", PODS_OF)
def test_every_entry_from_everywhere(
    way: tuple[Path, Protocol], policy: str, endpoints: str, family: IpFamily
) -> None:
    path, protocol = way
    state, behind = planned(path, protocol, policy, endpoints)
    kernels = [Kernel(state, draw) for draw in (0, 1)]
    for asked in combinations():
        if asked.policy == policy and asked.endpoints == endpoints:
            wanted = outcome_of(asked)._replace(why="")
            if path is Path.REDIRECT_TO_HOST:
                wanted = wanted._replace(as_node=False)  # no packet of the client's gets to a pod
            sent = sent_by(asked.asker, asked.entry, protocol, family)
            assert found(kernels, behind, sent, family) == wanted, asked


@pytest.mark.parametrize("protocol", list(Protocol)[:2])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("endpoints", PODS_OF)
def test_while_no_worker_is_alive_the_pods_answer_and_see_the_node(
    protocol: Protocol, policy: str, endpoints: str, family: IpFamily
) -> None:
    state, _ = planned(Path.REDIRECT_TO_HOST, protocol, policy, endpoints)
    kernels = [Kernel(state, draw, alive=()) for draw in (0, 1)]
    for asked in combinations():
        if asked.policy == policy and asked.endpoints == endpoints:
            outcome = outcome_of(asked)
            sent = sent_by(asked.asker, asked.entry, protocol, family)
            wanted = outcome._replace(why="", as_node=bool(outcome.pods))
            assert found(kernels, {}, sent, family) == wanted, asked


@pytest.mark.parametrize("protocol", list(Protocol)[:2])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_pod_that_reaches_itself_sees_the_node(protocol: Protocol, entry: str, family: IpFamily) -> None:
    state, _ = planned(Path.REDIRECT_TO_POD, protocol, "Cluster", "here")
    itself = in_family(PODS["here"], family)
    packet, hook = sent_by("pod", entry, protocol, family)
    verdict, sent = Kernel(state).send(replace(packet, source=itself.ip), hook, "postrouting")
    assert (verdict, sent.destination) == ("masquerade", itself)
