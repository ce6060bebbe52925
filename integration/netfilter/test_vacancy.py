"""A listener where nobody listens any more, while the worker's heartbeats are still believed."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from integration.netfilter.node import BOTH_FAMILIES, LISTENER, SERVER1, VIP
from integration.sockets import reset
from userproxy.model.actions import CaptureChange
from userproxy.model.heartbeat import BEAT_PORT, LEAVE_PORT
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, ToListener, ToPods
from userproxy.worker.heart import open_socket, send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.netfilter.node import Node
    from userproxy.netfilter.nftables import Nftables

TCP, UDP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
GUARDS = frozenset({Frontend(Protocol.TCP, LISTENER), Frontend(Protocol.UDP, LISTENER)})
CLIENT_PORT = 45_000
AT_ONCE_SECONDS = 0.5


@pytest.fixture
def heart(node: Node) -> Iterator[socket.socket]:
    """The heart of a worker on the host, which has just beaten."""
    with node.inside("host"):
        made = open_socket(0)
    with made:
        send(made, BEAT_PORT)
        yield made


def relay(nftables: Nftables, *, opens: bool) -> None:
    """Lead to the listener, and to a pod behind it or to none."""
    target = ToListener(LISTENER, ToPods((SERVER1,), masquerade=True) if opens else None)
    nftables.apply(CaptureChange(put={TCP: target, UDP: target}, guard=GUARDS, workers=1))


def seconds_to_ask(node: Node, asker: str) -> float:
    began = time.monotonic()
    assert node.ask(asker).startswith("server1 ")
    return time.monotonic() - began


@BOTH_FAMILIES
def test_the_first_client_comes_again_and_all_others_get_to_a_pod(
    node: Node, nftables: Nftables, heart: socket.socket
) -> None:
    relay(nftables, opens=True)
    with node.serving("server1", SERVER1, "server1"):
        with node.serving("host", LISTENER, "proxy"):
            assert node.ask("server2").startswith("proxy ")
            assert node.ask_udp("server2").startswith("proxy ")
        send(heart, BEAT_PORT)
        first = seconds_to_ask(node, "server2")
        send(heart, BEAT_PORT)
        second = seconds_to_ask(node, "server2")
        print(f"served after {first:.2f} s, and {second:.3f} s")
        assert second < AT_ONCE_SECONDS < first
        with pytest.raises(TimeoutError):
            node.ask_udp("server2")
        assert node.ask_udp("server2").startswith("server1 ")


@BOTH_FAMILIES
def test_from_the_host_the_first_one_is_refused_and_all_others_get_to_a_pod(
    node: Node, nftables: Nftables, heart: socket.socket
) -> None:
    node.default_route()
    relay(nftables, opens=True)
    with node.serving("server1", SERVER1, "server1"):
        for ask in (node.ask, node.ask_udp):
            send(heart, BEAT_PORT)
            with pytest.raises(ConnectionRefusedError):
                ask("host")
            assert ask("host").startswith("server1 ")


def test_where_no_pods_are_behind_it_is_refused(node: Node, nftables: Nftables, heart: socket.socket) -> None:
    relay(nftables, opens=False)
    for _ in range(2):
        send(heart, BEAT_PORT)
        with pytest.raises(ConnectionRefusedError):
            node.ask("server2")


def test_a_client_that_was_reset_comes_again_from_the_same_port(
    node: Node, nftables: Nftables, heart: socket.socket
) -> None:
    relay(nftables, opens=True)

    def connect() -> socket.socket:
        with node.inside("server2"):
            return socket.create_connection((VIP.ip, VIP.port), 3.0, ("", CLIENT_PORT))

    with node.serving("server1", SERVER1, "server1"):
        with node.inside("host"):
            listener = socket.create_server((LISTENER.ip, LISTENER.port))
        with listener, connect() as client:
            reset(listener.accept()[0])
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        send(heart, LEAVE_PORT)
        with connect() as again:
            assert again.recv(100).startswith(b"server1 ")
