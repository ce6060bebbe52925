"""Connections that the kernel carries are ended: both ends are reset, and nobody else is."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integration.netfilter.node import BOTH_FAMILIES, HOST_IP, NODE_PORT, SERVER1, SERVER2, VIP
from integration.sockets import inside_namespace
from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, ToPods
from userproxy.netfilter.conntrack.flows import flows
from userproxy.netfilter.ending import ending
from userproxy.netfilter.ending.ending import end
from userproxy.netfilter.ending.rules import ENDING_TABLE
from userproxy.netfilter.ending.table import EndingTable
from userproxy.tests.twins import twin
from userproxy.worker import privileges
from userproxy.worker.privileges import Capability

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from integration.netfilter.node import Node
    from userproxy.netfilter.conntrack.flows import Flow
    from userproxy.netfilter.ending.ending import Ended
    from userproxy.netfilter.nftables import Nftables

HOST_POD = Address(HOST_IP, 8080)
Pair = tuple[socket.socket, socket.socket]


class Way(NamedTuple):
    """How a connection goes: who opens it, to which frontend, and where its pod is."""

    client: str
    frontend: Address
    pod: Address
    at: str


WAYS = {
    "a pod to another one": Way("server2", VIP, SERVER1, "server1"),
    "a pod to itself": Way("server1", VIP, SERVER1, "server1"),
    "the host": Way("host", VIP, SERVER1, "server1"),
    "from outside, with the address of the node": Way("outside", NODE_PORT, SERVER1, "server1"),
    "a pod to one in the host's network": Way("server2", VIP, HOST_POD, "host"),
    "the host to itself": Way("host", VIP, HOST_POD, "host"),
    "from outside to the host": Way("outside", NODE_PORT, HOST_POD, "host"),
}


@contextlib.contextmanager
def listening(node: Node, member: str, address: Address, family: str) -> Iterator[socket.socket]:
    """A server whose ends of connections the scenario has in its own hands."""
    own: Address = twin(address) if family == "IPv6" else address
    with inside_namespace(node.names[member]):
        listener = socket.create_server(
            (own.ip, own.port), family=socket.AF_INET6 if own.is_ipv6 else socket.AF_INET
        )
    listener.settimeout(3)
    with listener:
        yield listener


@contextlib.contextmanager
def pair(node: Node, member: str, listener: socket.socket, frontend: Address = VIP) -> Iterator[Pair]:
    """The two ends of a connection, the client's first."""
    with node.connect(member, frontend) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(3)
            yield client, server


def carry(nftables: Nftables, frontend: Address = VIP, pod: Address = SERVER1) -> None:
    target = ToPods((pod,), masquerade=frontend is NODE_PORT)
    nftables.apply(CaptureChange(put={Frontend(Protocol.TCP, frontend): target}))


def known(node: Node, *pairs: Pair) -> list[Flow]:
    """The kernel's connections with these clients."""
    ports = {client.getsockname()[1] for client, _ in pairs}
    with node.inside("host"):
        return [each for each in flows() if each.client.port in ports]


def ended(node: Node, found: Collection[Flow]) -> Ended:
    with node.inside("host"):
        return end(found)


@contextlib.contextmanager
def without(capability: Capability) -> Iterator[None]:
    """This thread lacks it for the time of the block."""
    before = privileges._read()  # noqa: SLF001 - as our processes do
    privileges._write(before._replace(effective=before.effective & ~(1 << capability)))  # noqa: SLF001
    try:
        yield
    finally:
        privileges._write(before)  # noqa: SLF001


def is_reset(connection: socket.socket) -> bool:
    try:
        connection.recv(1)
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return False


def lives(pair: Pair) -> bool:
    client, server = pair
    client.sendall(b"?")
    server.sendall(server.recv(1))
    return client.recv(1) == b"?"


@BOTH_FAMILIES
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_both_ends_of_an_idle_connection_are_reset(
    node: Node, nftables: Nftables, family: str, way: Way
) -> None:
    node.default_route()
    carry(nftables, way.frontend, way.pod)
    with (
        listening(node, way.at, way.pod, family) as listener,
        pair(node, way.client, listener, way.frontend) as asked,
        pair(node, way.client, listener, way.frontend) as other,
    ):
        (flow,) = known(node, asked)
        done = ended(node, [flow])
        assert (done.ended, done.halves, done.untouched) == (frozenset({flow.id}), frozenset(), frozenset())
        assert [is_reset(each) for each in asked] == [True, True]
        assert known(node, asked) == []
        assert lives(other), "what was not asked for goes on"
        assert nftables.verify() == ()
        assert ENDING_TABLE not in node.run("host", "nft", "list", "tables")


def test_who_comes_again_from_the_same_port_begins_anew(node: Node, nftables: Nftables) -> None:
    carry(nftables)
    with (
        listening(node, "server1", SERVER1, "IPv4") as listener,
        pair(node, "server2", listener) as old,
        inside_namespace(node.names["server2"]),
        socket.socket() as again,
    ):
        found = known(node, old)
        with node.inside("host"), EndingTable() as table:
            table.end(found)
            old[0].sendall(b"?")
            assert is_reset(old[0])
            again.bind(old[0].getsockname())
            again.settimeout(0.2)
            with pytest.raises(TimeoutError):  # no refusal: the SYN is dropped while the old one has to end
                again.connect((VIP.ip, VIP.port))
        assert len(ended(node, found).ended) == 1
        assert is_reset(old[1])
        server, _ = listener.accept()  # for the next SYN
        again.settimeout(3)
        with server:
            server.settimeout(3)
            assert lives((again, server))


def test_what_cannot_be_provoked_is_left_as_it_is_and_named(
    node: Node, nftables: Nftables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_ROUNDS", ending._ROUNDS[:3])  # noqa: SLF001 - or it takes two seconds
    carry(nftables)
    with (
        listening(node, "server1", SERVER1, "IPv4") as listener,
        pair(node, "server2", listener) as idle,
        pair(node, "server2", listener) as over,
    ):
        found = known(node, idle, over)
        for each in over:
            each.close()
        with without(Capability.NET_RAW):
            done = ended(node, found)
        (left,) = known(node, idle)
        assert (done.untouched, done.problem) == (frozenset({left.id}), "CAP_NET_RAW is missing")
        assert done.ended == {each.id for each in found} - {left.id}, "it was over by itself"
        assert lives(idle)


def test_a_udp_flow_is_chosen_for_anew(node: Node, nftables: Nftables) -> None:
    frontend = Frontend(Protocol.UDP, VIP)
    with node.serving("server1", SERVER1, "server1"), node.serving("server2", SERVER2, "server2"):
        nftables.apply(CaptureChange(put={frontend: ToPods((SERVER1,))}))
        assert node.ask_udp("server2", source_port=5000).split()[0] == "server1"
        with node.inside("host"):
            (flow,) = flows()
        nftables.apply(CaptureChange(put={frontend: ToPods((SERVER2,))}))
        assert ended(node, [flow]).ended == {flow.id}
        assert node.ask_udp("server2", source_port=5000).split()[0] == "server2"


def test_nft_can_list_the_rules_meanwhile(node: Node, nftables: Nftables) -> None:
    carry(nftables)
    with (
        listening(node, "server1", SERVER1, "IPv4") as listener,
        pair(node, "server2", listener) as asked,
        node.inside("host"),
        EndingTable() as table,
    ):
        table.end(known(node, asked))
        shown = node.run("host", "nft", "list", "table", "inet", ENDING_TABLE)
    assert "elements" in shown
    assert "reject with tcp reset" in shown
