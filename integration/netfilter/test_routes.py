"""The host itself connects to a Service IP, whatever routes it has, and no route of others is overridden."""

from __future__ import annotations

import asyncio
import subprocess
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
    REFUSED,
    SERVER1,
    VIP,
    Routes6,
)
from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, Refuse, Target, ToListener, ToPods
from userproxy.netfilter.kernel import Kernel
from userproxy.netfilter.routes import Routes
from userproxy.tests.twins import twin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.netfilter.node import Node
    from userproxy.netfilter.nftables import Nftables

TCP, UDP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)


@pytest.fixture
def routes(node: Node, family: str) -> Iterator[Routes]:
    with node.inside("host"):
        made = Routes6() if family == "IPv6" else Routes()
    with made:
        yield made


def ours(node: Node) -> list[str]:
    shown = (
        node.run("host", "ip", family, "route", "show", "table", "all", "proto", "110")
        for family in ("-4", "-6")
    )
    return [line for lines in shown for line in lines.splitlines()]


def ways(node: Node) -> str:
    """All rules and routes."""
    return "".join(
        node.run("host", "ip", family, "rule")
        + node.run("host", "ip", family, "route", "show", "table", "all")
        for family in ("-4", "-6")
    )


@BOTH_FAMILIES
@pytest.mark.parametrize("default_route", [False, True])
@pytest.mark.parametrize("target", [ToListener(LISTENER), ToPods((SERVER1,))], ids=["listener", "pod"])
def test_the_host_connects_with_and_without_a_default_route(
    node: Node, nftables: Nftables, routes: Routes, default_route: bool, target: Target
) -> None:
    if default_route:
        node.default_route()
    else:
        with pytest.raises(OSError, match="unreachable"):
            node.ask("host")
    nftables.apply(CaptureChange(put={TCP: target, UDP: target}))
    routes.ensure([VIP.ip], [HOST_IP])
    with node.serving("host", LISTENER, "answered"), node.serving("server1", SERVER1, "answered"):
        assert node.ask("host") == f"answered {HOST_IP}"
        assert node.ask_udp("host") == f"answered {HOST_IP}"


@BOTH_FAMILIES
def test_the_host_is_refused_at_once_without_a_default_route(
    node: Node, nftables: Nftables, routes: Routes
) -> None:
    nftables.apply(CaptureChange(put={TCP: Refuse(), UDP: Refuse()}))
    routes.ensure([VIP.ip], [HOST_IP])
    for ask in (node.ask, node.ask_udp):
        with pytest.raises(REFUSED):
            ask("host")


def test_an_address_of_the_node_itself_gets_no_route(node: Node, routes: Routes) -> None:
    node.run("host", "ip", "address", "add", f"{EXTERNAL.ip}/32", "dev", "lo")
    node.run("host", "ip", "route", "add", "local", "192.0.2.0/28", "dev", "lo")
    own = [
        twin(NODE_PORT.ip),
        twin("10.0.1.1"),
        "::1",
        NODE_PORT.ip,
        "10.0.1.1",
        "127.0.0.1",
        "127.3.4.5",
        EXTERNAL.ip,
        "192.0.2.15",
    ]
    elsewhere = ["192.0.2.16", LOAD_BALANCER.ip, VIP.ip]
    wanted = [f"{ip} dev lo table 10110 scope link src {HOST_IP} " for ip in sorted(elsewhere)]
    routes.ensure([*own, *elsewhere], [HOST_IP])
    assert sorted(ours(node)) == sorted(wanted)
    routes.ensure([], [HOST_IP])
    routes.add(own, [HOST_IP])
    assert ours(node) == []
    assert "10110" not in node.run("host", "ip", "rule")
    routes.add([*own, *elsewhere], [HOST_IP])
    assert sorted(ours(node)) == sorted(wanted)
    routes.discard([*own, *elsewhere], [HOST_IP])
    assert ours(node) == []


def test_an_address_that_the_node_loses_gets_its_route_with_the_next_look(node: Node, routes: Routes) -> None:
    node.run("host", "ip", "address", "add", f"{EXTERNAL.ip}/32", "dev", "lo")
    routes.ensure([EXTERNAL.ip], [HOST_IP])
    assert ours(node) == []
    node.run("host", "ip", "address", "delete", f"{EXTERNAL.ip}/32", "dev", "lo")
    routes.ensure([EXTERNAL.ip], [HOST_IP])
    assert len(ours(node)) == 1
    node.run("host", "ip", "address", "add", f"{EXTERNAL.ip}/32", "dev", "lo")
    routes.ensure([EXTERNAL.ip], [HOST_IP])
    assert ours(node) == []


@pytest.mark.parametrize("address", [EXTERNAL, LOAD_BALANCER, NODE_PORT], ids=str)
@pytest.mark.parametrize("target", [ToListener(LISTENER), ToPods((SERVER1,))], ids=["listener", "pod"])
def test_the_host_connects_to_every_entry_without_a_default_route(
    node: Node, address: Address, target: Target
) -> None:
    entry = Frontend(Protocol.TCP, address)
    with node.inside("host"), Kernel([HOST_IP]) as kernel:
        asyncio.run(kernel.start())
        asyncio.run(kernel.apply(CaptureChange(put={entry: target, replace(entry, outside=True): target})))
        with node.serving("host", LISTENER, "answered"), node.serving("server1", SERVER1, "answered"):
            assert node.ask("host", address) == f"answered {HOST_IP}"
        assert len(ours(node)) == (address != NODE_PORT)
        asyncio.run(kernel.apply(CaptureChange(remove=frozenset({entry}))))
        assert len(ours(node)) == (address != NODE_PORT), "one frontend of the address is still there"
        asyncio.run(kernel.apply(CaptureChange(remove=frozenset({replace(entry, outside=True)}))))
        assert ours(node) == []


def test_an_existing_route_is_taken_as_before(node: Node, routes: Routes) -> None:
    node.run("host", "ip", "route", "add", "10.3.240.0/20", "via", "10.0.1.2")
    asked = ("ip", "route", "get", VIP.ip)
    before = node.run("host", *asked)
    routes.ensure([VIP.ip], [HOST_IP])
    assert node.run("host", *asked) == before
    assert "server1" in before


def test_routes_follow_the_services(node: Node, routes: Routes) -> None:
    before = ways(node)
    host_ips = [twin(HOST_IP), HOST_IP]
    routes.ensure([VIP.ip, "10.3.0.1", "fd00::1", "fd00::2"], host_ips)
    routes.ensure([VIP.ip, "10.3.0.2", "fd00::1"], host_ips)
    of_ipv6 = f"local fd00::1 dev lo table 10110 src {twin(HOST_IP)} metric 1024 pref medium"
    assert ours(node) == [
        f"10.3.0.2 dev lo table 10110 scope link src {HOST_IP} ",
        f"{VIP.ip} dev lo table 10110 scope link src {HOST_IP} ",
        of_ipv6,
    ]
    assert "32800:\tfrom all iif lo lookup 10110" in node.run("host", "ip", "-6", "rule")
    routes.ensure([VIP.ip, "fd00::1"], ["10.0.1.1", twin("10.0.1.1")])
    assert ours(node) == [
        f"{VIP.ip} dev lo table 10110 scope link src 10.0.1.1 ",
        of_ipv6.replace(twin(HOST_IP), twin("10.0.1.1")),
    ], "it moved"
    routes.ensure(["fd00::1"], [])
    assert ours(node) == [of_ipv6.replace(f" src {twin(HOST_IP)}", "")]
    assert "10110" not in node.run("host", "ip", "rule")
    routes.ensure([], host_ips)
    assert ways(node) == before


def test_forwarded_packets_do_not_take_our_routes(node: Node, routes: Routes) -> None:
    routes.ensure(["fd00::1"], [twin(HOST_IP)])
    assert "local fd00::1" in node.run("host", "ip", "route", "get", "fd00::1")
    with pytest.raises(subprocess.CalledProcessError):
        node.run("host", "ip", "route", "get", "fd00::1", "from", twin(SERVER1.ip), "iif", "server1")


def test_routes_and_rules_of_others_stay(node: Node, routes: Routes) -> None:
    node.run("host", "ip", "route", "add", "192.0.2.0/24", "dev", "eth0", "table", "10110")
    node.run("host", "ip", "rule", "add", "to", "192.0.2.1", "priority", "32800", "table", "99")
    node.run("host", "ip", "-6", "route", "add", "2001:db8::/64", "dev", "eth0", "table", "10110")
    before = ways(node)
    routes.ensure([VIP.ip, "fd00::1"], [HOST_IP])
    assert routes.remove() == (2, 2)
    assert ways(node) == before


def test_removed_routes_and_rule_are_put_back(node: Node, routes: Routes) -> None:
    routes.ensure([VIP.ip], [HOST_IP])
    node.run("host", "ip", "rule", "delete", "priority", "32800")
    node.run("host", "ip", "route", "flush", "table", "10110")
    routes.ensure([VIP.ip], [HOST_IP])
    assert len(ours(node)) == 1
    assert node.run("host", "ip", "rule").count("10110") == 1


def test_one_more_and_one_less_leave_the_others_alone(node: Node, routes: Routes) -> None:
    routes.ensure([VIP.ip], [HOST_IP])
    for _ in range(2):
        routes.add(["10.3.0.1", "fd00::1"], [HOST_IP])
        assert len(ours(node)) == 3
    for _ in range(2):
        routes.discard([VIP.ip, "fd00::1"], [HOST_IP])
        assert ours(node) == [f"10.3.0.1 dev lo table 10110 scope link src {HOST_IP} "]
    routes.ensure(["10.3.0.1"], [HOST_IP])
    assert node.run("host", "ip", "rule").count("10110") == 1


def test_ten_thousand_routes(node: Node, routes: Routes) -> None:
    addresses = [str(Address(f"10.3.{number // 250}.{number % 250 + 1}", 0).ip) for number in range(10_000)]
    for what, wanted in (("added", addresses), ("kept", addresses), ("removed", [])):
        begun = time.perf_counter()
        routes.ensure(wanted, [HOST_IP])
        print(f"10,000 routes {what}: {(time.perf_counter() - begun) * 1000:.1f} ms")
        assert len(ours(node)) == len(wanted)
    routes.ensure(addresses, [HOST_IP])
    for what, change in (("added", routes.add), ("removed", routes.discard)):
        begun = time.perf_counter()
        change(["10.4.0.1"], [HOST_IP])
        print(f"one {what} among them: {(time.perf_counter() - begun) * 1000:.1f} ms")
    assert len(ours(node)) == len(addresses)
