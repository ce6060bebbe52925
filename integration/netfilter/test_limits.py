"""How many connections may live to a frontend whose pods the kernel chooses by itself."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from integration.netfilter.asked import Asked
from integration.netfilter.node import BOTH_FAMILIES, OUTSIDE_IP, POD_ELSEWHERE_IP, REFUSED, SERVER1, VIP
from userproxy.model.actions import CaptureChange
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, ToPods
from userproxy.model.steering import chosen
from userproxy.netfilter.nftables import Nftables
from userproxy.netfilter.ruleset.made import Limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.netfilter.node import Node

TCP, UDP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
LIMITED = ToPods((SERVER1,), most=5, most_per_client=3)
AT_ONCE_SECONDS = 0.3
SHORT_UDP = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout"
CROWD = 200


@pytest.fixture
def limited(node: Node, nftables: Nftables) -> Iterator[Node]:
    """The node, with a server in a pod, and limits on the way to it."""
    assert nftables.can_limit
    node.default_route()
    nftables.apply(CaptureChange(put={TCP: LIMITED, UDP: LIMITED}))
    with node.serving("server1", SERVER1, "server1"):
        yield node


def is_refused(node: Node, member: str, source: str = "") -> bool:
    """Whether one more connection is, and then it is at once."""
    began = time.monotonic()
    try:
        node.connect(member, VIP, source).close()
    except ConnectionRefusedError:
        assert time.monotonic() - began < AT_ONCE_SECONDS
        return True
    return False


@BOTH_FAMILIES
@pytest.mark.parametrize("asker", ["outside", "host", "server2"])
def test_one_too_many_is_refused_and_the_next_one_served_when_there_is_room(
    limited: Node, nftables: Nftables, asker: str
) -> None:
    with contextlib.ExitStack() as stack:
        mine = [stack.enter_context(limited.connect(asker)) for _ in range(3)]
        assert is_refused(limited, asker), "a client has its own limit"
        assert nftables.turned_away() == 1
        other = "host" if asker != "host" else "outside"
        for _ in range(2):
            stack.enter_context(limited.connect(other))
        assert is_refused(limited, other), "and all have one"
        assert nftables.turned_away() == 2
        mine[0].close()
        deadline = time.monotonic() + 5
        while is_refused(limited, asker):  # until the server has closed its end too
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert nftables.verify() == ()


def test_each_client_ip_is_counted_by_itself_whatever_its_port(limited: Node) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(limited.connect("outside", source=OUTSIDE_IP))
        assert is_refused(limited, "outside", OUTSIDE_IP)
        assert not is_refused(limited, "outside", POD_ELSEWHERE_IP)


@BOTH_FAMILIES
def test_flows_of_udp_are_counted_until_conntrack_forgets_them(limited: Node) -> None:
    with limited.inside("host"), open(SHORT_UDP, "w", encoding="ascii") as setting:  # noqa: PTH123
        setting.write("1")
    ports = range(40001, 40004)
    for port in ports:
        assert limited.ask_udp("outside", VIP, port).startswith("server1")
    with pytest.raises(REFUSED):
        limited.ask_udp("outside", VIP, 40009)
    assert limited.ask_udp("outside", VIP, ports[0]).startswith("server1"), "who is in, stays in"
    deadline = time.monotonic() + 5
    while True:
        with contextlib.suppress(*REFUSED):
            limited.ask_udp("outside", VIP, 40009)
            return
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_of_a_crowd_just_as_many_as_may_are_let_in(limited: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: replace(LIMITED, most=50, most_per_client=None)}))
    clients = []
    with contextlib.ExitStack() as stack:
        for member in ("outside", "server2"):
            with limited.inside(member):
                for _ in range(CROWD // 2):
                    client = stack.enter_context(socket.socket())
                    client.settimeout(0)
                    clients.append(client)
                    client.connect_ex((VIP.ip, VIP.port))
        time.sleep(AT_ONCE_SECONDS)
        errors = [client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for client in clients]
        assert errors.count(0) == 50
        assert nftables.turned_away() == CROWD - 50


def test_another_limit_holds_at_once_and_the_next_daemon_counts_on(limited: Node, nftables: Nftables) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(limited.connect("outside"))
        nftables.close()
        with limited.inside("host"), Nftables() as successor:
            assert successor.ensure().captures == {TCP: LIMITED, UDP: LIMITED}
            assert is_refused(limited, "outside")
            successor.apply(CaptureChange(put={TCP: replace(LIMITED, most_per_client=1)}))
            assert Limit(5, 1).name in limited.run("host", "nft", "list", "table", "inet", "userproxy")
            stack.enter_context(limited.connect("outside"))  # counted are those that begin under it
            assert is_refused(limited, "outside")
            successor.apply(CaptureChange(put={TCP: ToPods((SERVER1,))}))
            assert not is_refused(limited, "outside")
            assert successor.verify() == ()


@BOTH_FAMILIES
def test_whoever_chooses_keeps_the_limits_and_the_kernel_does_while_nobody_reads_the_queue(
    limited: Node, nftables: Nftables
) -> None:
    nftables.apply(CaptureChange(put={TCP: replace(LIMITED, steered=True)}, queues=1))
    with contextlib.ExitStack() as stack:
        with Asked(limited, lambda mark: chosen(mark, 0)):
            for _ in range(4):
                stack.enter_context(limited.connect("outside"))
        assert is_refused(limited, "outside"), "those that were chosen for are counted"
        assert not is_refused(limited, "host")
        assert nftables.turned_away() == 1
    assert Limit(5, 3, steered=True).name in limited.run("host", "nft", "list", "table", "inet", "userproxy")
    assert nftables.verify() == ()


@BOTH_FAMILIES
def test_whom_the_rules_keep_out_takes_nobody_s_place(limited: Node, nftables: Nftables) -> None:
    nftables.apply(
        CaptureChange(
            put={TCP: replace(LIMITED, steered=True)}, queues=1, ranges={TCP: (f"{POD_ELSEWHERE_IP}/32",)}
        )
    )
    with Asked(limited, lambda mark: chosen(mark, 0)) as asked:
        with pytest.raises(TimeoutError):
            limited.connect("outside", source=OUTSIDE_IP, patience=AT_ONCE_SECONDS)
        assert asked.marks == []
        limited.connect("outside", source=POD_ELSEWHERE_IP).close()
        assert len(asked.marks) == 1
