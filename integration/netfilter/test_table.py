"""Our table: adopted untouched, restored when somebody changes it, and removed without a trace."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from integration.netfilter.node import HOST_IP, LISTENER, SERVER1, SERVER2, VIP, Node
from userproxy.model.actions import CaptureChange
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
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.cleanup import cleanup
from userproxy.netfilter.kernel import Kernel
from userproxy.netfilter.nftables import NETLINK_NETFILTER, Nftables
from userproxy.netfilter.routes import Routes
from userproxy.netfilter.wire import read_back
from userproxy.netfilter.wire.netlink import Socket
from userproxy.tests.twins import twin

if TYPE_CHECKING:
    from collections.abc import Callable

TCP = Frontend(Protocol.TCP, VIP)
FOREIGN = """
table ip someone {
	chain post { type nat hook postrouting priority 100; masquerade; }
	chain pre { type nat hook prerouting priority -100; tcp dport 9 redirect to :10; }
}
table inet kube-proxy {
	set cluster-ips { type ipv4_addr; elements = { 10.3.0.1 }; }
}
"""
OLDER = """
table inet userproxy {
	set protocols { type inet_proto; elements = { tcp, udp }; }
	map listeners4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; elements = { 10.3.241.152 . tcp . 80 : 10.100.0.2 . 10400 }; }
	chain pick-2 { }
	map sizes4 { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.3.0.2 . tcp . 80 : jump pick-2 }; }
	map pods4 { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; elements = { 10.3.0.2 . tcp . 80 . 0x0 : 10.0.1.2 . 8080, 10.3.0.2 . tcp . 80 . 0x1 : 10.0.2.2 . 8080 }; }
	set guarded4 { type ipv4_addr . inet_proto . inet_service; elements = { 10.100.0.2 . tcp . 10400 }; }
}
"""  # noqa: E501 - as nft reads it


def frontend(number: int, protocol: Protocol = Protocol.TCP) -> Frontend:
    return Frontend(protocol, Address(f"10.3.{number // 250}.{number % 250 + 1}", 80))


OUTSIDE = replace(frontend(5), outside=True)
_OF_IPV4: dict[Frontend, Target] = {
    TCP: ToListener(LISTENER),
    frontend(1): ToPods((SERVER1, SERVER2)),
    frontend(2): Refuse(),
    frontend(3): Drop(),
    frontend(3, Protocol.UDP): ToListener(LISTENER),
    frontend(5): ToPods((SERVER1, SERVER2), masquerade=True, affinity=10_800.0),
    OUTSIDE: ToPods((SERVER1,), affinity=10_800.0),
}
CAPTURES: dict[Frontend, Target] = {**_OF_IPV4, **twin(_OF_IPV4)}
GUARDS = frozenset({Frontend(Protocol.TCP, LISTENER), Frontend(Protocol.TCP, Address(HOST_IP, 10401))})
GUARDS |= twin(GUARDS)
CLUSTER_IPS = (VIP.ip, "10.3.0.2")
RANGES = {frontend(3): ("10.0.0.0/14", "192.0.2.0/24"), TCP: ("0.0.0.0/0",)}
POD_IPS = (SERVER1.ip, SERVER2.ip, "10.0.3.99")
PODS = ("10.0.0.0/14", "10.4.0.0/16")
STATE = NodeState(
    captures=CAPTURES,
    guards=dict.fromkeys(GUARDS),
    cluster_ips=dict.fromkeys((*CLUSTER_IPS, *twin(CLUSTER_IPS))),
    ranges={**RANGES, **twin(RANGES)},
    pods=dict.fromkeys((*POD_IPS, *twin(POD_IPS))),
    perimeter=Perimeter(uplinks=("eth0", "wlan0"), inside=(*PODS, *twin(PODS)), closed=False),
)
EVERYTHING = CaptureChange(
    put=CAPTURES,
    guard=GUARDS,
    claim=frozenset(STATE.cluster_ips),
    ranges=dict(STATE.ranges),
    watch=frozenset(STATE.pods),
    perimeter=STATE.perimeter,
)


def state_of(node: Node) -> str:
    return "".join(
        node.run("host", *command.split())
        for command in (
            "nft list ruleset",
            "ip rule",
            "ip route show table all",
            "ip -6 rule",
            "ip -6 route show table all",
        )
    )


def generation(node: Node) -> int:
    with node.inside("host"):
        connection = Socket(NETLINK_NETFILTER)
    try:
        return read_back.generation(connection)
    finally:
        connection.close()


def again(node: Node) -> Nftables:
    with node.inside("host"):
        return Nftables()


def test_a_new_daemon_adopts_the_table_untouched(node: Node, nftables: Nftables) -> None:
    nftables.apply(EVERYTHING)
    with node.serving("host", LISTENER, "proxy"), node.connect("server1") as connection:
        assert connection.recv(100)
        before = node.run("host", "nft", "-a", "list", "ruleset")
        nftables.close()
        with again(node) as successor:
            assert successor.ensure() == STATE
            assert node.run("host", "nft", "-a", "list", "ruleset") == before, "not one handle changed"
            connection.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"
            successor.apply(CaptureChange(remove=frozenset({TCP}), put={frontend(4): Refuse()}))
            assert successor.verify() == ()


TAMPERING = {
    "the table deleted": "delete table inet userproxy",
    "the table flushed": "flush table inet userproxy",
    "the whole ruleset flushed": "flush ruleset",
    "a rule put in": "insert rule inet userproxy guard-input accept",
    "a rule put in elsewhere": "add chain inet userproxy foreign",
    "a map emptied": "flush map inet userproxy listeners4",
    "an element added": "add element inet userproxy refused4 { 10.9.9.9 . tcp . 80 }",
    "a client let in": "add element inet userproxy ranges4 { 10.3.0.4 . tcp . 80 . 10.9.0.0/16 }",
    "everybody let in": "flush set inet userproxy ranged4",
    "a client of IPv6 let in": (
        "add element inet userproxy ranges6 { fd00:4::a03:4 . tcp . 80 . 2001:db8::/32 }"
    ),
    "a network of IPv6 put inside": "add element inet userproxy inside6 { 2001:db8::/32 }",
    "a listener of IPv6 forgotten": "flush map inet userproxy listeners6",
    "a network put inside": "add element inet userproxy inside4 { 10.8.0.0/16 }",
    "an uplink added": "add element inet userproxy uplinks { wlan1 }",
    "cluster IPs closed": "add element inet userproxy closed { ipv4 }",
    "a cluster IP forgotten": "delete element inet userproxy cluster-ips4 { 10.3.0.2 }",
    "a frontend masqueraded": "add element inet userproxy masquerade4 { 10.3.0.2 . tcp . 80 }",
    "no affinity for the outside": "flush map inet userproxy outside-members4",
    "a frontend's own outside taken away": "flush set inet userproxy outside4",
    "a rule of affinity taken away": "flush chain inet userproxy pin-for-10800",
    "a pod exchanged": (
        "delete element inet userproxy pods4 { 10.3.0.2 . tcp . 80 . 1 };"
        "add element inet userproxy pods4 { 10.3.0.2 . tcp . 80 . 1 : 10.0.9.9 . 80 }"
    ),
}


@pytest.mark.usefixtures("older_kernel")
@pytest.mark.parametrize("command", TAMPERING.values(), ids=TAMPERING)
def test_tampering_is_noticed_and_undone(node: Node, nftables: Nftables, command: str) -> None:
    nftables.apply(EVERYTHING)
    intact = node.run("host", "nft", "list", "ruleset")
    assert nftables.verify() == ()
    node.run("host", "nft", command)
    assert nftables.verify(), "noticed"
    assert nftables.verify(), "and not forgotten until it is undone"
    assert nftables.ensure() == STATE
    assert nftables.verify() == ()
    assert sorted(node.run("host", "nft", "list", "ruleset").split()) == sorted(intact.split())


@pytest.mark.usefixtures("older_kernel")
def test_restoring_keeps_established_connections(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put=CAPTURES))
    with node.serving("host", LISTENER, "proxy"), node.connect("server1") as connection:
        assert connection.recv(100)
        node.run("host", "nft", "flush table inet userproxy")
        nftables.ensure()
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"still there?"
        assert node.ask("server1").startswith("proxy ")


def test_a_successor_keeps_what_it_can_read_of_a_tampered_table(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put=CAPTURES))
    nftables.close()
    node.run("host", "nft", "flush chain inet userproxy capture4")
    with again(node) as successor:
        assert successor.ensure().captures == CAPTURES
        assert successor.verify() == ()


def test_a_table_of_an_older_version_is_replaced_with_its_captures(node: Node, nftables: Nftables) -> None:
    nftables.remove()
    node.run("host", "nft", OLDER)
    generation_before = generation(node)
    with again(node) as successor:
        state = successor.ensure()
        assert state.captures == {TCP: ToListener(LISTENER), frontend(1): ToPods((SERVER1, SERVER2))}
        assert state.guards.keys() == {Frontend(Protocol.TCP, LISTENER)}
        assert generation(node) == generation_before + 1, "in one transaction"
        assert successor.verify() == ()
        with node.serving("host", LISTENER, "proxy"):
            assert node.ask("server1").startswith("proxy ")


def test_the_kernel_starts_with_all_that_an_earlier_daemon_left(node: Node, nftables: Nftables) -> None:
    nftables.apply(EVERYTHING)
    nftables.close()
    before = generation(node)
    with node.inside("host"), Kernel([HOST_IP]) as kernel:
        assert asyncio.run(kernel.start()) == STATE
        assert asyncio.run(kernel.repair()) == ()
        assert generation(node) == before + 1, "it has another owner, and is untouched"
        asyncio.run(kernel.apply(CaptureChange(perimeter=Perimeter(uplinks=("eth0",)))))
        assert generation(node) == before + 2, "a change is one transaction"
        assert asyncio.run(kernel.repair()) == ()


def test_a_change_of_everything_is_one_transaction(node: Node, nftables: Nftables) -> None:
    before = generation(node)
    nftables.apply(EVERYTHING)
    assert generation(node) == before + 1
    nftables.apply(
        CaptureChange(
            remove=frozenset(CAPTURES),
            unguard=GUARDS,
            disclaim=frozenset(STATE.cluster_ips),
            ranges=dict.fromkeys(STATE.ranges, ()),
            unwatch=frozenset(STATE.pods),
            perimeter=Perimeter(),
        )
    )
    assert generation(node) == before + 2
    assert nftables.ensure() == NodeState()
    assert nftables.verify() == ()


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["as text", "as JSON"])
def test_nft_can_list_all_that_is_ours(node: Node, nftables: Nftables, form: list[str]) -> None:
    nftables.apply(EVERYTHING)
    listed = node.run("host", "nft", *form, "list", "ruleset")
    for part in ("wlan0", "10.4.0.0", "sticky-pick-2", "outside-pin-for-10800", "outside-members4"):
        assert part in listed


@pytest.mark.usefixtures("older_kernel")
def test_a_change_restores_a_deleted_table_on_its_way(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put=CAPTURES))
    node.run("host", "nft", "delete table inet userproxy")
    nftables.apply(CaptureChange(put={TCP: Refuse()}))
    with again(node) as successor:
        assert successor.ensure().captures == {**CAPTURES, TCP: Refuse()}


def test_other_peoples_tables_are_untouched(node: Node) -> None:
    node.run("host", "nft", FOREIGN)
    before = state_of(node)
    with again(node) as nftables:
        assert nftables.missing_kernel_features() == ()
        assert state_of(node) == before, "asking changes nothing"
        nftables.ensure()
        nftables.apply(CaptureChange(put=CAPTURES))
        with node.serving("host", LISTENER, "proxy"):
            assert node.ask("server1").startswith("proxy ")
        node.run("host", "nft", "add chain ip someone other")
        assert nftables.verify() == (), "what others do in their tables is no tampering"
        node.run("host", "nft", "delete chain ip someone other")
        nftables.remove()
        nftables.remove()
    assert state_of(node) == before


@pytest.mark.parametrize("foreign", ["", FOREIGN], ids=["alone", "beside others"])
def test_cleanup_leaves_no_trace(node: Node, foreign: str) -> None:
    if foreign:
        node.run("host", "nft", foreign)
    before = state_of(node)
    with again(node) as nftables, node.inside("host"), Routes() as routes:
        nftables.ensure()
        nftables.apply(CaptureChange(put=CAPTURES))
        routes.ensure([VIP.ip, "10.3.0.1", "fd00::1"], [HOST_IP])
    assert state_of(node) != before
    for found in (
        (
            "nftables table inet userproxy",
            "routing rules 32800 to table 10110",
            "3 routes to Service IPs in table 10110",
        ),
        (),
    ):
        with node.inside("host"):
            assert cleanup() == found
        assert state_of(node) == before


def test_without_privileges_one_line_says_so(node: Node) -> None:
    script = (
        "import os; from userproxy.netfilter.nftables import Nftables;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "print(*Nftables().missing_kernel_features(), sep='|')"
    )
    said = node.run("host", sys.executable, "-c", script).strip()
    assert "CAP_NET_ADMIN" in said
    assert "|" not in said


def test_an_impossible_change_changes_nothing(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put=CAPTURES))
    wrong = ToListener(Address("fd00::1", 80))
    with pytest.raises(ValueError, match="fd00::1"):
        nftables.apply(CaptureChange(put={TCP: Refuse(), frontend(4): wrong}))
    assert nftables.verify() == ()
    nftables.close()
    with again(node) as successor:
        assert successor.ensure().captures == CAPTURES


def test_no_permission_is_an_error_with_a_remedy(node: Node, nftables: Nftables) -> None:
    with node.inside("host"):
        other = Nftables()
    other.close()
    with pytest.raises(NetfilterError):
        other.verify()
    assert nftables.verify() == ()


@pytest.mark.parametrize("services", [10, 100, 1000, 1001, 2000, 3000, 5000])
def test_a_change_of_any_size_is_one_transaction(node: Node, nftables: Nftables, services: int) -> None:
    before = generation(node)
    captures: dict[Frontend, Target] = {frontend(number): ToListener(LISTENER) for number in range(services)}
    nftables.apply(CaptureChange(put=captures))
    assert generation(node) == before + 1
    nftables.apply(CaptureChange(put=dict.fromkeys(captures, Refuse())))
    nftables.apply(CaptureChange(remove=frozenset(captures)))
    assert generation(node) == before + 3
    assert nftables.ensure().captures == {}


@pytest.mark.parametrize(
    "target",
    [
        lambda number: ToListener(Address(HOST_IP, 10400 + number % 8000)),
        lambda number: ToPods(tuple(Address(f"10.0.1.{pod + 2}", 8080) for pod in range(number % 5 + 1))),
    ],
    ids=["to listeners", "to pods"],
)
def test_ten_thousand_services(node: Node, nftables: Nftables, target: Callable[[int], Target]) -> None:
    captures = {frontend(number): target(number) for number in range(10_000)}
    timed("10,000 loaded", lambda: nftables.apply(CaptureChange(put=captures)))
    one = frontend(10_001)
    timed("one added", lambda: nftables.apply(CaptureChange(put={one: target(0)})))
    timed("one changed", lambda: nftables.apply(CaptureChange(put={one: target(1)})))
    timed("one removed", lambda: nftables.apply(CaptureChange(remove=frozenset({one}))))
    timed("verified, nobody changed anything", nftables.verify)
    node.run("host", "nft", "add table ip someone")
    timed("verified, somebody changed something else", nftables.verify)
    nftables.close()
    with again(node) as successor:
        timed("adopted", successor.ensure)
        assert successor.ensure().captures == captures
    node.run("host", "nft", "flush chain inet userproxy capture6")
    with again(node) as successor:
        timed("restored", successor.ensure)
        assert successor.verify() == ()


def timed(what: str, act: Callable[[], object]) -> None:
    begun = time.perf_counter()
    act()
    print(f"{what}: {(time.perf_counter() - begun) * 1000:.1f} ms")
