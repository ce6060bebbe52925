"""A Service port has several entries, and who comes from outside is not treated as a pod is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from integration.netfilter.node import (
    BOTH_FAMILIES,
    EXTERNAL,
    HOST_IP,
    LISTENER,
    LOAD_BALANCER,
    NODE_PORT,
    OUTSIDE_IP,
    PERIMETER,
    POD_ELSEWHERE_IP,
    REFUSED,
    SERVER1,
    SERVER2,
    VIP,
)
from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Drop, Frontend, Perimeter, Refuse, ToListener, ToPods
from userproxy.netfilter.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.netfilter.node import Node
    from userproxy.model.state import Target
    from userproxy.netfilter.nftables import Nftables

TCP, UDP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
ENTRIES = {"node port": NODE_PORT, "external IP": EXTERNAL, "load balancer IP": LOAD_BALANCER}
SHORT = 0.6
EVERYBODY = ("server1", "outside", "host")


def frontend(address: Address, *, outside: bool = False) -> Frontend:
    return Frontend(Protocol.TCP, address, outside=outside)


@pytest.fixture
def servers(node: Node) -> Iterator[None]:
    """Both pods, and the listener, each saying who it is."""
    node.default_route()
    with contextlib.ExitStack() as stack:
        stack.enter_context(node.serving("server1", SERVER1, "server1"))
        stack.enter_context(node.serving("server2", SERVER2, "server2"))
        stack.enter_context(node.serving("host", LISTENER, "proxy"))
        yield


@BOTH_FAMILIES
@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("address", ENTRIES.values(), ids=ENTRIES)
@pytest.mark.parametrize("asker", EVERYBODY)
def test_every_entry_is_served_to_everybody(
    node: Node, nftables: Nftables, asker: str, address: Address
) -> None:
    nftables.apply(CaptureChange(put={frontend(address): ToListener(LISTENER)}, perimeter=PERIMETER))
    assert node.ask(asker, address).startswith("proxy ")
    nftables.apply(CaptureChange(put={frontend(address): ToPods((SERVER2,), masquerade=True)}))
    seen = {"server1": SERVER1.ip, "outside": "10.0.2.1", "host": HOST_IP}
    assert node.ask(asker, address) == f"server2 {seen[asker]}", "only who is outside is masqueraded"


@BOTH_FAMILIES
@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("address", ENTRIES.values(), ids=ENTRIES)
def test_from_outside_a_frontend_of_its_own_is_taken(
    node: Node, nftables: Nftables, address: Address
) -> None:
    everybody, outside = frontend(address), frontend(address, outside=True)
    nftables.apply(
        CaptureChange(
            put={everybody: ToPods((SERVER2,), masquerade=True), outside: ToPods((SERVER1,))},
            perimeter=PERIMETER,
        )
    )
    assert node.ask("outside", address) == f"server1 {OUTSIDE_IP}", "under its own address"
    assert node.ask("outside", address, POD_ELSEWHERE_IP) == "server2 10.0.2.1", "it is asked by a node"
    assert node.ask("server1", address) == f"server2 {SERVER1.ip}"
    nftables.apply(CaptureChange(put={outside: Drop()}))
    with pytest.raises(TimeoutError):
        node.connect("outside", address, patience=SHORT)
    assert node.ask("server1", address).startswith("server2 ")
    nftables.apply(CaptureChange(put={everybody: Refuse(), outside: ToListener(LISTENER)}))
    assert node.ask("outside", address).startswith("proxy ")
    with pytest.raises(ConnectionRefusedError):
        node.ask("server1", address)
    nftables.apply(CaptureChange(remove=frozenset({outside}), put={everybody: ToPods((SERVER1,))}))
    assert node.ask("outside", address).startswith("server1 "), "and where there is none, the other one"


@BOTH_FAMILIES
@pytest.mark.usefixtures("servers")
def test_use_from_outside_is_noted_as_such(node: Node, nftables: Nftables) -> None:
    everybody, outside = frontend(NODE_PORT), frontend(NODE_PORT, outside=True)
    put: dict[Frontend, Target] = {everybody: ToPods((SERVER2,)), outside: ToPods((SERVER1,))}
    nftables.apply(CaptureChange(put=put, perimeter=PERIMETER))
    node.ask("outside", NODE_PORT)
    assert nftables.used() == {outside}
    node.ask("server1", NODE_PORT)
    assert nftables.used() == {everybody, outside}


@pytest.mark.usefixtures("servers")
def test_a_listener_serves_who_comes_from_outside_by_any_protocol(node: Node, nftables: Nftables) -> None:
    udp = Frontend(Protocol.UDP, NODE_PORT)
    nftables.apply(
        CaptureChange(
            put={udp: Refuse(), replace(udp, outside=True): ToListener(LISTENER)}, perimeter=PERIMETER
        )
    )
    assert node.ask_udp("outside", NODE_PORT) == f"proxy {OUTSIDE_IP}"
    with pytest.raises(ConnectionRefusedError):
        node.ask_udp("server1", NODE_PORT)


@BOTH_FAMILIES
@pytest.mark.usefixtures("servers")
def test_cluster_ips_are_closed_to_the_outside_until_they_are_opened(node: Node, nftables: Nftables) -> None:
    target = ToPods((SERVER1,), masquerade=True)
    nftables.apply(CaptureChange(put={TCP: target, UDP: target}, claim=frozenset({VIP.ip})))
    assert node.ask("outside") == f"server1 {OUTSIDE_IP}", "nothing is outside as yet"
    with node.connect("outside") as connection:
        assert connection.recv(100)
        nftables.apply(CaptureChange(perimeter=PERIMETER))
        for ask in (node.ask, node.ask_udp):
            begun = time.monotonic()
            with pytest.raises(ConnectionRefusedError):
                ask("outside")
            assert time.monotonic() - begun < SHORT
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"still there?", "what is established stays"
    assert node.ask("server2") == f"server1 {SERVER2.ip}"
    assert node.ask("outside", source=POD_ELSEWHERE_IP) == "server1 10.0.1.1"
    nftables.apply(CaptureChange(perimeter=replace(PERIMETER, closed=False)))
    assert node.ask("outside") == node.ask_udp("outside") == "server1 10.0.1.1"


@BOTH_FAMILIES
@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("asker", EVERYBODY)
def test_a_port_that_a_cluster_ip_does_not_have_is_refused(
    node: Node, nftables: Nftables, asker: str
) -> None:
    other, elsewhere = Address(VIP.ip, 81), Address("10.3.241.153", 81)
    nftables.apply(
        CaptureChange(
            put={TCP: ToListener(LISTENER), UDP: ToListener(LISTENER)},
            claim=frozenset({VIP.ip}),
            perimeter=replace(PERIMETER, closed=False),
        )
    )
    for ask in (node.ask, node.ask_udp):
        begun = time.monotonic()
        with pytest.raises(REFUSED if asker == "host" else ConnectionRefusedError):
            ask(asker, other)
        assert time.monotonic() - begun < SHORT
        assert ask(asker).startswith("proxy ")
    with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
        node.connect(asker, elsewhere, patience=SHORT)
    nftables.apply(CaptureChange(disclaim=frozenset({VIP.ip})))
    with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
        node.connect(asker, other, patience=SHORT)


@pytest.mark.usefixtures("servers")
def test_somebody_elses_capture_behind_ours_is_served(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(claim=frozenset({VIP.ip})))
    dnat = f"ip daddr {VIP.ip} tcp dport 80 dnat to {SERVER2}"
    node.run(
        "host",
        "nft",
        f"table ip other {{ chain pre {{ type nat hook prerouting priority -100; {dnat}; }}; }}",
    )
    assert node.ask("server1").startswith("server2 ")


@BOTH_FAMILIES
@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("target", [ToListener(LISTENER), ToPods((SERVER1,))], ids=["listener", "pod"])
def test_only_clients_in_the_ranges_reach_a_load_balancer_ip(
    node: Node, nftables: Nftables, target: Target
) -> None:
    everybody = frontend(LOAD_BALANCER)
    nftables.apply(
        CaptureChange(
            put={everybody: target, TCP: target},
            ranges={everybody: (f"{OUTSIDE_IP}/32", "10.0.2.0/24")},
            perimeter=PERIMETER,
        )
    )
    assert node.ask("outside", LOAD_BALANCER)
    assert node.ask("server2", LOAD_BALANCER)
    for asker, source in (("outside", POD_ELSEWHERE_IP), ("server1", ""), ("host", "")):
        with pytest.raises(OSError, match=r"timed out|not permitted"):
            node.connect(asker, LOAD_BALANCER, source, patience=SHORT)
    nftables.apply(CaptureChange(put={replace(everybody, outside=True): target}))
    assert node.ask("outside", LOAD_BALANCER)
    with pytest.raises(TimeoutError):
        node.connect("outside", LOAD_BALANCER, POD_ELSEWHERE_IP, patience=SHORT)
    assert node.ask("server1"), "the cluster IP has no ranges"
    with node.connect("outside", LOAD_BALANCER) as connection:
        assert connection.recv(100)
        nftables.apply(CaptureChange(ranges={everybody: ("10.0.1.0/24",)}))
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"still there?"
    with pytest.raises(TimeoutError):
        node.connect("outside", LOAD_BALANCER, patience=SHORT)
    assert node.ask("server1", LOAD_BALANCER)
    for networks in (("0.0.0.0/0",), ()):
        nftables.apply(CaptureChange(ranges={everybody: networks}))
        assert all(node.ask(asker, LOAD_BALANCER) for asker in ("outside", "server1", "server2", "host"))
    assert nftables.verify() == ()


@pytest.mark.usefixtures("servers")
def test_an_uplink_may_come_later_and_under_the_same_name_again(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: ToPods((SERVER1,))}, claim=frozenset({VIP.ip})))
    nftables.apply(CaptureChange(perimeter=Perimeter(uplinks=("wan0",), inside=PERIMETER.inside)))
    assert node.ask("outside")
    node.run("host", "ip", "link", "set", "eth0", "down")
    node.run("host", "ip", "link", "set", "eth0", "name", "wan0")
    node.run("host", "ip", "link", "set", "wan0", "up")
    with pytest.raises(ConnectionRefusedError):
        node.ask("outside")


@BOTH_FAMILIES
@pytest.mark.usefixtures("servers")
def test_a_hairpin_is_masqueraded_though_nobody_is_outside(node: Node, nftables: Nftables) -> None:
    everybody = frontend(NODE_PORT)
    nftables.apply(CaptureChange(put={everybody: ToPods((SERVER1,), masquerade=True)}, perimeter=PERIMETER))
    assert node.ask("server1", NODE_PORT) == "server1 10.0.1.1"


@pytest.mark.usefixtures("servers")
def test_flows_from_outside_are_spared_by_what_concerns_the_others(node: Node) -> None:
    everybody = Frontend(Protocol.UDP, NODE_PORT)
    outside = replace(everybody, outside=True)
    captures: dict[Frontend, Target] = {everybody: ToPods((SERVER2,)), outside: ToPods((SERVER1,))}

    def flows() -> int:
        return node.run("host", "cat", "/proc/net/nf_conntrack").count(f"dport={NODE_PORT.port}")

    with node.inside("host"), Kernel([HOST_IP]) as kernel:
        asyncio.run(kernel.start())
        asyncio.run(kernel.apply(CaptureChange(put=captures, perimeter=PERIMETER)))
        assert node.ask_udp("outside", NODE_PORT) == f"server1 {OUTSIDE_IP}"
        assert node.ask_udp("server1", NODE_PORT) == f"server2 {SERVER1.ip}"
        asyncio.run(kernel.forget({everybody: (SERVER2,)}))
        assert flows() == 2
        asyncio.run(kernel.forget({everybody: ()}))
        assert flows() == 1, "the one from outside"
        asyncio.run(kernel.apply(CaptureChange(remove=frozenset(captures))))
        asyncio.run(kernel.forget({everybody: (), outside: ()}))
        assert flows() == 0
        assert kernel.counters.conntrack_deleted == {"IPv4": 2}
        assert sum(kernel.counters.conntrack_times["IPv4"].counts) == 3


def test_a_segment_that_conntrack_calls_invalid_does_not_reach_the_client(
    node: Node, nftables: Nftables
) -> None:
    with node.inside("server2"):
        client = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with node.inside("server1"):
        pod = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with client, pod:
        client.settimeout(SHORT)
        segment = struct.pack(">HHIIBBHHH", SERVER1.port, 40000, 1, 1, 5 << 4, 0, 1000, 0, 0)  # no such flags
        pod.sendto(segment, (SERVER2.ip, 0))
        assert client.recv(100), "a pod that is none of ours may send what it likes"
        nftables.apply(CaptureChange(put={TCP: ToPods((SERVER1,))}))
        pod.sendto(segment, (SERVER2.ip, 0))
        with pytest.raises(TimeoutError):
            client.recv(100)
