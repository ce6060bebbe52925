"""The entries of a Service port, each asked from everywhere: with captures as a plan gives them."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import (
    Drop,
    Frontend,
    NodeState,
    Perimeter,
    Refuse,
    Target,
    ToListener,
    ToPods,
)
from userproxy.netfilter.ruleset.chains import STATE_ESTABLISHED, STATE_INVALID, STATUS_DNAT
from userproxy.netfilter.trace.walk import Packet
from userproxy.tests.netfilter.ruleset.tracer import Kernel

VIP = Address("10.3.241.152", 80)
EXTERNAL = {
    "node port": Address("10.100.0.2", 30080),
    "external IP": Address("203.0.113.9", 80),
    "load balancer IP": Address("198.51.100.7", 80),
}
HERE, ELSEWHERE = Address("10.0.1.2", 8080), Address("10.0.2.2", 8080)
ENDPOINTS = {"none": (), "elsewhere": (ELSEWHERE,), "both": (HERE, ELSEWHERE)}
LISTENER, LOCAL_LISTENER = Address("10.100.0.2", 10400), Address("10.100.0.2", 10401)
PERIMETER = Perimeter(uplinks=("eth0",), inside=("10.0.0.0/14",))
CLIENT = "192.0.2.50"
ORIGINS = {
    "pod": ({"source": "10.0.1.3", "device": "cbr0"}, "prerouting"),
    "pod elsewhere": ({"source": "10.0.2.3", "device": "eth0"}, "prerouting"),
    "host": ({"source": "10.100.0.2", "device": ""}, "output"),
    "outside": ({"source": CLIENT, "device": "eth0"}, "prerouting"),
}
RESET = "reject with tcp reset"

# What packets come to at the cluster IP, and at each of the other entries.
TABLE = {
    ("Cluster", "none", "pod"): ("refused", "refused"),
    ("Cluster", "none", "pod elsewhere"): ("refused", "refused"),
    ("Cluster", "none", "host"): ("refused", "refused"),
    ("Cluster", "none", "outside"): ("refused", "refused"),
    ("Cluster", "elsewhere", "pod"): ("any", "any"),
    ("Cluster", "elsewhere", "pod elsewhere"): ("any", "any, masqueraded"),
    ("Cluster", "elsewhere", "host"): ("any", "any"),
    ("Cluster", "elsewhere", "outside"): ("refused", "any, masqueraded"),
    ("Cluster", "both", "pod"): ("any", "any"),
    ("Cluster", "both", "pod elsewhere"): ("any", "any, masqueraded"),
    ("Cluster", "both", "host"): ("any", "any"),
    ("Cluster", "both", "outside"): ("refused", "any, masqueraded"),
    ("Local", "none", "pod"): ("refused", "refused"),
    ("Local", "none", "pod elsewhere"): ("refused", "refused"),
    ("Local", "none", "host"): ("refused", "refused"),
    ("Local", "none", "outside"): ("refused", "refused"),
    ("Local", "elsewhere", "pod"): ("any", "any"),
    ("Local", "elsewhere", "pod elsewhere"): ("any", "any, masqueraded"),
    ("Local", "elsewhere", "host"): ("any", "any"),
    ("Local", "elsewhere", "outside"): ("refused", "dropped"),
    ("Local", "both", "pod"): ("any", "any"),
    ("Local", "both", "pod elsewhere"): ("any", "any, masqueraded"),
    ("Local", "both", "host"): ("any", "any"),
    ("Local", "both", "outside"): ("refused", "here"),
}


def planned(path: str, policy: str, endpoints: str) -> NodeState:
    """What a plan would capture for a Service with all kinds of entries."""
    pods = ENDPOINTS[endpoints]
    here = tuple(pod for pod in pods if pod == HERE)
    anywhere: Target = Refuse()
    local: Target = Drop() if pods else Refuse()
    if pods:
        anywhere = ToListener(LISTENER) if path == "listener" else ToPods(pods, masquerade=True)
    if here:
        local = ToListener(LOCAL_LISTENER) if path == "listener" else ToPods(here)
    captures: dict[Frontend, Target] = {
        Frontend(Protocol.TCP, address): anywhere for address in EXTERNAL.values()
    }
    captures[Frontend(Protocol.TCP, VIP)] = ToPods(pods) if isinstance(anywhere, ToPods) else anywhere
    if policy == "Local":
        captures |= {Frontend(Protocol.TCP, address, outside=True): local for address in EXTERNAL.values()}
    return NodeState(captures=captures, cluster_ips={VIP.ip: None}, perimeter=PERIMETER, workers=1)


def send(kernel: Kernel, origin: str, destination: Address) -> tuple[str, Packet]:
    fields, hook = ORIGINS[origin]
    packet = replace(Packet(destination=destination), **fields)
    verdict, sent = kernel.send(packet, hook)
    if verdict == "accept" and sent.status & STATUS_DNAT:
        verdict, sent = kernel.send(sent, "input" if sent.destination.ip == LISTENER.ip else "postrouting")
    return verdict, sent


def outcome(kernel: Kernel, origin: str, destination: Address) -> str:
    verdict, sent = send(kernel, origin, destination)
    if verdict in (RESET, "drop"):
        return "refused" if verdict == RESET else "dropped"
    reached = {HERE: "here", ELSEWHERE: "elsewhere", LISTENER: "any", LOCAL_LISTENER: "here"}
    masqueraded = ", masqueraded" if verdict == "masquerade fully-random" else ""
    return reached.get(sent.destination, "untouched") + masqueraded


@pytest.mark.parametrize("path", ["listener", "pods"])
@pytest.mark.parametrize("entry", ["cluster IP", *EXTERNAL])
@pytest.mark.parametrize(("row", "outcomes"), TABLE.items(), ids="-".join)
def test_each_entry_has_its_own_policy(
    path: str, entry: str, row: tuple[str, str, str], outcomes: tuple[str, str]
) -> None:
    policy, endpoints, origin = row
    wanted = outcomes[entry in EXTERNAL]
    found = {
        outcome(Kernel(planned(path, policy, endpoints), draw), origin, EXTERNAL.get(entry, VIP))
        for draw in (0, 1)
    }
    if path == "listener":
        assert found == {wanted.removesuffix(", masqueraded")}, "we are the client of the pod"
    elif wanted.startswith("any"):
        pods = ["here", "elsewhere"] if endpoints == "both" else ["elsewhere"]
        assert found == {pod + wanted.removeprefix("any") for pod in pods}
    else:
        assert found == {wanted}


@pytest.mark.parametrize(
    ("outside", "anywhere"),
    list(itertools.permutations([Refuse(), Drop(), ToListener(LISTENER), ToPods((HERE,))], 2)),
)
def test_from_outside_a_frontend_of_its_own_goes_before_the_other(outside: Target, anywhere: Target) -> None:
    address = EXTERNAL["node port"]
    plain = Frontend(Protocol.TCP, address)
    kernel = Kernel(
        NodeState(captures={plain: anywhere, replace(plain, outside=True): outside}, perimeter=PERIMETER)
    )
    alone = {
        target: outcome(Kernel(NodeState(captures={plain: target})), "pod", address)
        for target in (outside, anywhere)
    }
    assert outcome(kernel, "outside", address) == alone[outside]
    assert {outcome(kernel, origin, address) for origin in ORIGINS if origin != "outside"} == {
        alone[anywhere]
    }


def test_without_uplinks_nothing_is_outside() -> None:
    state = planned("pods", "Local", "elsewhere")
    kernel = Kernel(replace(state, perimeter=Perimeter(inside=("10.0.0.0/14",))))
    assert outcome(kernel, "outside", VIP) == "elsewhere"
    assert outcome(kernel, "outside", EXTERNAL["node port"]) == "elsewhere"


def test_cluster_ips_that_are_open_are_served_to_the_outside() -> None:
    state = planned("pods", "Cluster", "both")
    captures = {**state.captures, Frontend(Protocol.TCP, VIP): ToPods((HERE,), masquerade=True)}
    kernel = Kernel(replace(state, captures=captures, perimeter=replace(PERIMETER, closed=False)))
    assert outcome(kernel, "outside", VIP) == outcome(kernel, "pod elsewhere", VIP) == "here, masqueraded"
    assert outcome(kernel, "outside", Address(VIP.ip, 81)) == "refused", "a port that is none of its"


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("closed", [False, True])
def test_a_port_of_a_cluster_ip_that_nobody_serves_is_refused(origin: str, closed: bool) -> None:
    state = planned("listener", "Cluster", "both")
    kernel = Kernel(replace(state, perimeter=replace(PERIMETER, closed=closed)))
    fields, hook = ORIGINS[origin]
    unknown = replace(Packet(destination=Address(VIP.ip, 81)), **fields)
    assert kernel.send(unknown, hook)[0] == RESET
    assert kernel.send(replace(unknown, protocol=17), hook)[0] == "reject"
    for spared in (
        replace(unknown, state=STATE_ESTABLISHED),
        replace(unknown, protocol=1),
        replace(unknown, protocol=132),
        replace(unknown, destination=Address("10.3.241.153", 81)),
    ):
        assert kernel.send(spared, hook) == ("accept", spared)


CLIENTS = ("192.0.2.0/24", "10.0.1.3/32")


@pytest.mark.parametrize("outside", [None, ToPods((HERE,)), ToListener(LOCAL_LISTENER), Refuse()])
@pytest.mark.parametrize("target", [ToListener(LISTENER), ToPods((HERE,)), Refuse()])
def test_only_clients_in_the_ranges_reach_a_frontend(target: Target, outside: Target | None) -> None:
    address = EXTERNAL["load balancer IP"]
    frontend = Frontend(Protocol.TCP, address)
    captures: dict[Frontend, Target] = {frontend: target, Frontend(Protocol.TCP, VIP): target}
    if outside is not None:
        captures[replace(frontend, outside=True)] = outside
    kernel = Kernel(NodeState(captures=captures, ranges={frontend: CLIENTS}, perimeter=PERIMETER))

    def ask(source: str, device: str, asked: Address = address) -> str:
        hook = "prerouting" if device else "output"
        return kernel.send(Packet(source=source, device=device, destination=asked), hook)[0]

    served = {each: RESET if isinstance(each, Refuse) else "accept" for each in (target, outside)}
    assert ask(CLIENT, "eth0") == served[outside or target]
    assert ask("10.0.1.3", "cbr0") == served[target]
    for source, device in (("192.0.3.1", "eth0"), ("10.0.1.4", "cbr0"), ("10.100.0.2", "")):
        assert ask(source, device) == "drop"
        assert ask(source, device, VIP) == served[target], "another frontend is anybody's"


def test_a_range_of_everything_lets_everybody_in() -> None:
    frontend = Frontend(Protocol.TCP, EXTERNAL["load balancer IP"])
    captures: dict[Frontend, Target] = {frontend: ToListener(LISTENER)}
    kernel = Kernel(NodeState(captures=captures, ranges={frontend: ("0.0.0.0/0", "10.0.0.0/8")}))
    assert {outcome(kernel, origin, frontend.address) for origin in ORIGINS} == {"any"}


def test_a_segment_of_a_pod_that_conntrack_calls_invalid_goes_nowhere() -> None:
    kernel = Kernel(planned("pods", "Cluster", "both"))
    stray = Packet(source=HERE.ip, device="cbr0", destination=Address("10.0.1.3", 40000), state=STATE_INVALID)
    assert kernel.send(stray, "prerouting")[0] == "drop"
    for spared in (
        replace(stray, source="10.0.1.3"),
        replace(stray, protocol=17),
        replace(stray, state=STATE_ESTABLISHED),
    ):
        assert kernel.send(spared, "prerouting")[0] == "accept"
    relayed = Kernel(planned("listener", "Cluster", "both"))
    assert relayed.send(stray, "prerouting")[0] == "accept", "no pod of theirs is ours to translate"


MOST_LOOKUPS = {"listener": 10, "pods": 16, "outside": 22}


@pytest.mark.parametrize("path", ["listener", "pods"])
def test_the_first_packet_costs_the_same_with_any_number_of_services(path: str) -> None:
    few = planned(path, "Local", "both")
    captures = dict(few.captures)
    for number in range(200):
        address = Address(f"10.3.0.{number}", 80)
        captures[Frontend(Protocol.TCP, address)] = few.captures[Frontend(Protocol.TCP, VIP)]
    many = replace(few, captures=captures)
    for origin, address in itertools.product(ORIGINS, (VIP, *EXTERNAL.values())):
        costs = []
        for state in (few, many):
            kernel = Kernel(state)
            send(kernel, origin, address)
            costs.append(kernel.lookups)
        most = MOST_LOOKUPS["outside" if origin in ("outside", "pod elsewhere") else path]
        assert costs[0] == costs[1] <= most, (origin, address)


def test_a_packet_of_an_established_connection_is_looked_up_nowhere() -> None:
    kernel = Kernel(planned("pods", "Local", "both"))
    packet = Packet(destination=VIP, state=STATE_ESTABLISHED, status=STATUS_DNAT, device="eth0")
    assert kernel.send(packet, "prerouting", "postrouting", "input", "output") == ("accept", packet)
    assert kernel.lookups == 0
