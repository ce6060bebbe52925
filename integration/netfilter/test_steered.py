"""New connections to a steered frontend: whoever reads the queue says where they go."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from integration.netfilter.asked import Asked
from integration.netfilter.node import (
    BOTH_FAMILIES,
    HOST_IP,
    NODE_PORT,
    PERIMETER,
    REFUSED,
    SERVER1,
    SERVER2,
    VIP,
)
from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, ToPods
from userproxy.model.steering import FIRST_QUEUE, MARK_BITS, OUTSIDE, chosen, refused
from userproxy.netfilter.nftables import Nftables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.netfilter.node import Node
    from userproxy.model.state import Target

TCP, UDP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
INSIDE, FROM_OUTSIDE = (Frontend(Protocol.TCP, NODE_PORT, outside=outside) for outside in (False, True))
TARGET = ToPods((SERVER1,), steered=True, others=(SERVER2,))
AT_ONCE_SECONDS = 0.5
UNREACHABLE = f"""
table inet lossy {{
    chain lossy {{
        type filter hook input priority 0
        ip daddr {SERVER1.ip} tcp dport {SERVER1.port} tcp flags syn / syn,ack drop
    }}
}}
"""
REJECTING = f"""
table inet rejecting {{
    chain rejecting {{
        type filter hook input priority 0
        tcp dport {SERVER1.port} tcp flags syn / syn,ack reject with icmpx host-unreachable
    }}
}}
"""
ASKERS = ("server1", "outside", "host")
FOREIGN = 0x0015C000
"""Bits of a mark that are others'."""
OTHERS = f"""
table inet others {{
    chain before {{ type filter hook prerouting priority -295; meta mark set {FOREIGN | 0x2001}; }}
    chain own {{ type filter hook output priority -295; meta mark set {FOREIGN | 0x2001}; }}
    chain after {{
        type filter hook postrouting priority 50
        meta l4proto tcp tcp flags syn / syn,ack ct status dnat meta mark {FOREIGN} counter
        meta l4proto udp ct state new ct status dnat meta mark {FOREIGN} counter
    }}
}}
"""
"""Others set bits of theirs, and some of ours, which would be a choice; and see what came of it."""


@pytest.fixture
def steered(node: Node, nftables: Nftables) -> Iterator[Node]:
    """By the rules the first pod is chosen, or from outside the second one; both serve."""
    node.default_route()
    own = ToPods((SERVER2,), steered=True)
    put: dict[Frontend, Target] = {TCP: TARGET, UDP: TARGET, INSIDE: TARGET, FROM_OUTSIDE: own}
    nftables.apply(CaptureChange(put=put, queues=1, perimeter=PERIMETER))
    assert nftables.verify() == ()
    node.run("host", "nft", OTHERS)
    with node.serving("server1", SERVER1, "server1"), node.serving("server2", SERVER2, "server2"):
        yield node


def counted(node: Node) -> list[int]:
    """How many new connections have left with others' bits and no other, and how many flows."""
    listed = node.run("host", "nft", "list", "chain", "inet", "others", "after")
    return [int(packets) for packets in re.findall(r"counter packets (\d+)", listed)]


def asked(node: Node, address: Address = VIP) -> list[str]:
    """Who answers each of them."""
    return [node.ask(asker, address).split()[0] for asker in ASKERS]


@BOTH_FAMILIES
def test_who_is_asked_refuses_chooses_or_is_not_there(steered: Node) -> None:
    node = steered
    with Asked(node, refused) as who:
        for asker in ASKERS:
            for ask in (node.ask, node.ask_udp):
                began = time.monotonic()
                with pytest.raises(REFUSED):
                    ask(asker)
                assert time.monotonic() - began < AT_ONCE_SECONDS
        who.answer, who.marks = lambda mark: chosen(mark, 1), []
        assert asked(node) == ["server2"] * 3
        assert [node.ask_udp(asker).split()[0] for asker in ASKERS] == ["server2"] * 3
        assert who.marks == [FOREIGN] * 6, "none of our bits that others have set is left"
        who.answer = lambda mark: chosen(mark, 0)
        assert asked(node) == ["server1"] * 3
        who.answer = lambda mark: chosen(mark, 7)
        assert asked(node) == ["server1"] * 3, "there is no such pod"
    assert asked(node) == ["server1"] * 3, "nobody is there: the rules choose, whatever others' bits say"
    assert [node.ask_udp(asker).split()[0] for asker in ASKERS] == ["server1"] * 3
    assert counted(node) == [12, 6], "with the marks of others, and no other bit"


def hooks(node: Node) -> set[str]:
    """Our chains that only steered frontends need."""
    table = node.run("host", "nft", "list", "table", "inet", "userproxy")
    return set(re.findall(r"chain ((?:ask|chosen|settle|withhold|queue)-\S+)", table))


@BOTH_FAMILIES
def test_the_hooks_go_with_the_last_one_and_no_connection_does(steered: Node, nftables: Nftables) -> None:
    node, before = steered, hooks(steered)
    nftables.prune()
    assert hooks(node) == before, "they are needed"
    with Asked(node, lambda mark: chosen(mark, 1)), node.connect("outside") as connection:
        assert connection.recv(100).startswith(b"server2 ")
        nftables.apply(CaptureChange(remove=frozenset({UDP, INSIDE, FROM_OUTSIDE}), queues=0))
        plain = ToPods((SERVER1,))
        nftables.apply(CaptureChange(put={TCP: plain}))
        nftables.prune()
        assert hooks(node) == set()
        assert nftables.verify() == ()
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"still there?"
        assert asked(node) == ["server1"] * 3
        nftables.apply(CaptureChange(put={TCP: TARGET}, queues=1))
        assert hooks(node) == before
        assert nftables.verify() == ()
        assert asked(node) == ["server2"] * 3
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"still there?"


@BOTH_FAMILIES
def test_who_is_from_outside_is_told_by_the_mark_where_that_matters(steered: Node) -> None:
    assert asked(steered, NODE_PORT) == ["server1", "server2", "server1"]
    with Asked(steered, lambda mark: chosen(mark, 0 if mark & MARK_BITS == OUTSIDE else 1)) as who:
        assert asked(steered, NODE_PORT) == ["server2"] * 3
        assert [mark & MARK_BITS for mark in who.marks] == [0, OUTSIDE, 0]


def test_a_syn_that_is_sent_again_goes_to_another_pod_once_conntrack_has_forgotten(steered: Node) -> None:
    node = steered
    node.run("server1", "nft", UNREACHABLE)

    def another_pod(mark: int) -> int:
        if len(who.marks) == 1:
            return chosen(mark, 0)
        node.run("host", "conntrack", "--delete", "--proto", "tcp", "--orig-dst", VIP.ip)
        return chosen(mark, 1)

    with Asked(node, another_pod) as who:
        assert node.ask("outside", patience=5).startswith("server2 ")
        assert len(who.marks) == 2


@BOTH_FAMILIES
@pytest.mark.parametrize("ip", [SERVER1.ip, HOST_IP], ids=["a pod", "a pod of the host's network"])
def test_a_pod_that_refuses_is_not_heard(steered: Node, nftables: Nftables, ip: str) -> None:
    target = ToPods((Address(ip, 9), SERVER2), steered=True)
    nftables.apply(CaptureChange(put={TCP: target}))

    def first_the_one_that_refuses(mark: int) -> int:
        return chosen(mark, int(len(who.marks) > len(ASKERS)))

    with (
        Asked(steered, first_the_one_that_refuses) as who,
        ThreadPoolExecutor(len(ASKERS)) as askers,
    ):
        assert [said.split()[0] for said in askers.map(steered.ask, ASKERS)] == ["server2"] * len(ASKERS)
        assert len(who.marks) == 2 * len(ASKERS)


def test_a_packet_that_waits_is_not_lost_while_another_daemon_begins(
    steered: Node, nftables: Nftables
) -> None:
    node = steered

    def another_begins(mark: int) -> int:
        nftables.close()
        with node.inside("host"), Nftables() as another:
            assert another.missing_kernel_features() == ()
            another.ensure()
            assert another.verify() == ()
        return chosen(mark, 1)

    with Asked(node, another_begins) as who:
        assert node.ask("outside", patience=5).startswith("server2 ")
        assert len(who.marks) == 1, "it was not sent again"


@BOTH_FAMILIES
def test_nor_is_whoever_says_that_a_pod_cannot_be_reached(steered: Node, family: str) -> None:
    steered.run("server1", "nft", REJECTING)
    forget = f"conntrack --delete --family {family.lower()} --proto tcp --state SYN_SENT || true"

    def first_the_one_that_cannot(mark: int) -> int:
        if len(who.marks) <= len(ASKERS):
            return chosen(mark, 0)
        steered.run("host", "sh", "-c", forget)
        return chosen(mark, 1)

    with (
        Asked(steered, first_the_one_that_cannot) as who,
        ThreadPoolExecutor(len(ASKERS)) as askers,
    ):
        assert [said.split()[0] for said in askers.map(steered.ask, ASKERS)] == ["server2"] * len(ASKERS)


@BOTH_FAMILIES
def test_a_reset_for_what_conntrack_has_forgotten_is_heard(steered: Node) -> None:
    """The client speaks, and is led to a pod that does not know it, here by others' bits of the mark."""
    for asker in ASKERS:
        with Asked(steered, lambda mark: chosen(mark, 0)), steered.connect(asker) as client:
            assert client.recv(100).startswith(b"server1 ")
            steered.run("host", "conntrack", "--flush")
            client.sendall(b"?")
            client.settimeout(AT_ONCE_SECONDS)
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_nft_lists_what_is_asked(steered: Node) -> None:
    listed = steered.run("host", "nft", "list", "table", "inet", "userproxy")
    assert f"queue num {FIRST_QUEUE} bypass" in listed or f"queue flags bypass to {FIRST_QUEUE}" in listed
