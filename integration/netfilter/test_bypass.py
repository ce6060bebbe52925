"""Somebody else's nat rule that takes a Service's connections before ours is found, and nothing else is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from integration.netfilter.node import BOTH_FAMILIES, LISTENER, SERVER2, VIP, Nftables6, Node, Node6
from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, ToListener
from userproxy.netfilter.bypass.look import BypassWatch
from userproxy.netfilter.nftables import Nftables
from userproxy.tests.twins import twin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TCP = Frontend(Protocol.TCP, VIP)
OTHER = Frontend(Protocol.TCP, Address("10.3.241.153", 80))
OF_UDP = Frontend(Protocol.UDP, VIP)


def as_said(node: Node, text: str) -> str:
    """The same rules for the family of the node."""
    if not isinstance(node, Node6):
        return text
    for before, after in ((r"\bip ", "ip6 "), ("ipv4_addr", "ipv6_addr"), ("^iptables", "ip6tables")):
        text = re.sub(before, after, text)
    text = re.sub(r"([0-9.]+\.[0-9]+):([0-9]+)", lambda found: f"[{twin(found[1])}]:{found[2]}", text)
    return re.sub(r"[0-9]+(\.[0-9]+){3}(/[0-9]+)?", lambda found: str(twin(found[0])), text)


def nft(rules: str, *more: str, priority: int = -101, family: str = "ip") -> Callable[[Node], object]:
    """A table of somebody else's with a nat chain at prerouting."""
    base = f"chain pre {{ type nat hook prerouting priority {priority}; {rules} }}"
    text = f"table {family} someone {{ {'; '.join((*more, base))}; }}"
    return lambda node: node.run("host", "nft", as_said(node, text))


def iptables(program: str, *rules: str) -> Callable[[Node], object]:
    """Rules in the nat table of iptables, in one of its two kinds."""

    def prepare(node: Node) -> None:
        for rule in rules:
            node.run("host", as_said(node, program), "-t", "nat", *as_said(node, rule).split())

    return prepare


TO_SERVER2 = f"dnat to {SERVER2}"
MAP = "type ipv4_addr . inet_proto . inet_service : verdict"
CHAINS = (
    f"chain endpoint {{ meta l4proto tcp {TO_SERVER2}; }}",
    "chain service { numgen random mod 1 vmap { 0 : goto endpoint }; }",
    f"map services {{ {MAP}; elements = {{ {VIP.ip} . tcp . 80 : goto service }}; }}",
    "chain services { ip daddr . meta l4proto . th dport vmap @services; }",
)
JUMPS = (
    "-N KUBE-SVC-A",
    f"-A KUBE-SVC-A -p tcp -m comment --comment pods -j DNAT --to-destination {SERVER2}",
    "-N KUBE-MARK-MASQ",
    "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
    "-N KUBE-SERVICES",
    f"-A KUBE-SERVICES -d {VIP.ip}/32 -p tcp -m comment --comment web -m tcp --dport 80 -j KUBE-SVC-A",
    "-A PREROUTING -m comment --comment portals -j KUBE-SERVICES",
)

TAKING = {
    "an address and a port": nft(f"ip daddr {VIP.ip} tcp dport 80 {TO_SERVER2};"),
    "a network": nft(f"ip daddr 10.3.240.0/20 meta l4proto tcp {TO_SERVER2};"),
    "a network on a byte": nft(f"ip daddr 10.0.0.0/8 meta l4proto tcp {TO_SERVER2};"),
    "a port, whatever the address": nft(f"tcp dport 80 {TO_SERVER2};"),
    "a set of addresses": nft(f"ip daddr {{ 10.9.9.9, {VIP.ip} }} tcp dport 80 {TO_SERVER2};"),
    "a set of ranges": nft(
        f"ip daddr {{ 10.9.0.0/16, 10.3.241.0-10.3.241.255 }} meta l4proto tcp {TO_SERVER2};"
    ),
    "both families": nft(f"ip daddr {VIP.ip} tcp dport 80 dnat ip to {SERVER2};", family="inet"),
    "chains, as kube-proxy's": nft("jump services;", *CHAINS),
    "at the same priority, and younger": nft(f"ip daddr {VIP.ip} tcp dport 80 {TO_SERVER2};", priority=-100),
    "iptables-nft": iptables("iptables-nft", *JUMPS),
    "iptables-legacy": iptables("iptables-legacy", *JUMPS),
}
HARMLESS = {
    "an empty chain": nft(""),
    "another address": nft(f"ip daddr {OTHER.address.ip} tcp dport 81 {TO_SERVER2};"),
    "another port": nft(f"ip daddr {VIP.ip} tcp dport 81 {TO_SERVER2};"),
    "another protocol": nft(f"ip daddr {VIP.ip} sctp dport 80 dnat to {SERVER2.ip};"),
    "all but that address": nft(f"ip daddr != {VIP.ip} tcp dport 80 ip daddr 10.9.9.9 {TO_SERVER2};"),
    "no translation": nft(f"ip daddr {VIP.ip} tcp dport 80 counter accept;"),
    "a mark": nft(f"ip daddr {VIP.ip} tcp dport 80 jump marking;", "chain marking { meta mark set 1; }"),
    "at the same priority, and older": nft(f"ip daddr {VIP.ip} tcp dport 80 {TO_SERVER2};", priority=-100),
    "iptables-nft, older": iptables("iptables-nft", *JUMPS),
    "iptables-legacy, older": iptables("iptables-legacy", *JUMPS),
    "a later chain": nft(f"ip daddr {VIP.ip} tcp dport 80 {TO_SERVER2};", priority=-99),
    "the source's translation": iptables("iptables-nft", f"-A POSTROUTING -d {VIP.ip} -j MASQUERADE"),
    "iptables-nft, unused": iptables("iptables-nft", "-A PREROUTING -d 10.9.9.9 -j ACCEPT"),
    "iptables-legacy, another address": iptables(
        "iptables-legacy", *(each.replace(VIP.ip, "10.9.9.9") for each in JUMPS)
    ),
    "iptables-legacy, a mark": iptables(
        "iptables-legacy", *(each.replace("-j KUBE-SVC-A", "-j KUBE-MARK-MASQ") for each in JUMPS)
    ),
}


@pytest.fixture
def watch(node: Node) -> Iterator[BypassWatch]:
    with node.inside("host"):
        made = BypassWatch()
    yield made
    made.close()


def look(node: Node, watch: BypassWatch) -> dict[Frontend, str]:
    """Those of three frontends that are taken, and what is said of it."""
    watch.rest = 0
    ours = {frontend: frontend for frontend in (TCP, OTHER, OF_UDP)}
    if isinstance(node, Node6):
        ours = {twin(frontend): frontend for frontend in ours}
    others = [twin(frontend) if frontend in ours else frontend for frontend in (TCP, OTHER, OF_UDP)]
    with node.inside("host"):
        found = watch.look([*ours, *others])
    assert not found.keys() & set(others), "those of the other family are left alone"
    return {ours[frontend]: taker.message(frontend) for frontend, taker in found.items()}


def captured(node: Node) -> Nftables:
    """Our table, made now, with a Service that leads to a listener."""
    with node.inside("host"):
        made = Nftables6() if isinstance(node, Node6) else Nftables()
    made.ensure()
    made.apply(CaptureChange(put={TCP: ToListener(LISTENER)}))
    return made


@BOTH_FAMILIES
@pytest.mark.parametrize("prepare", TAKING.values(), ids=TAKING)
def test_whoever_takes_a_service_is_found(
    node: Node, watch: BypassWatch, prepare: Callable[[Node], object]
) -> None:
    with captured(node), node.serving("server2", SERVER2, "pod"), node.serving("host", LISTENER, "proxy"):
        assert look(node, watch) == {}
        assert node.ask("server1").startswith("proxy ")
        prepare(node)
        found = look(node, watch)
        assert TCP in found
        print(found[TCP])
        assert node.ask("server1").startswith("pod "), "so it is"


def test_whoever_was_there_before_us_at_a_lower_priority_is_found(node: Node, watch: BypassWatch) -> None:
    TAKING["an address and a port"](node)
    with captured(node), node.serving("server2", SERVER2, "pod"):
        assert TCP in look(node, watch)
        assert node.ask("server1").startswith("pod ")


def test_a_daemon_that_adopts_our_table_tells_by_the_order_of_tables(node: Node, watch: BypassWatch) -> None:
    with captured(node) as ours, node.serving("server2", SERVER2, "pod"):
        TAKING["at the same priority, and younger"](node)
        assert TCP in look(node, watch)
        assert node.ask("server1").startswith("pod ")
        with node.serving("host", LISTENER, "proxy"):
            ours.close()
            node.run("host", "nft", "flush table inet userproxy")
            captured(node).close()
            assert look(node, watch) == {}, "ours is the youngest now"
            assert node.ask("server1").startswith("proxy ")


@BOTH_FAMILIES
@pytest.mark.parametrize("prepare", HARMLESS.values(), ids=HARMLESS)
def test_whoever_does_not_is_no_trouble(
    node: Node, watch: BypassWatch, prepare: Callable[[Node], object]
) -> None:
    prepare(node)
    with captured(node), node.serving("host", LISTENER, "proxy"):
        assert look(node, watch) == {}
        assert node.ask("server1").startswith("proxy ")


def test_it_is_noticed_when_it_comes_and_when_it_goes(node: Node, watch: BypassWatch) -> None:
    with captured(node):
        assert look(node, watch) == {}
        TAKING["an address and a port"](node)
        (message,) = look(node, watch).values()
        assert "a rule of somebody else, chain pre of table ip someone" in message
        node.run("host", "nft", "delete table ip someone")
        assert look(node, watch) == {}


def test_kube_proxy_is_called_by_its_name(node: Node, watch: BypassWatch) -> None:
    with captured(node):
        assert look(node, watch) == {}
        TAKING["iptables-nft"](node)
        (message,) = look(node, watch).values()
        assert "kube-proxy, chain KUBE-SERVICES of table ip nat" in message
        assert "service.kubernetes.io/service-proxy-name" in message
