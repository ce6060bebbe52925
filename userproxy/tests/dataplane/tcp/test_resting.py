"""A socket that is said to be ready, and moves nothing: another way is taken, or it rests; nothing spins."""

from __future__ import annotations

import select
import socket as net
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from userproxy.dataplane.tcp.pipes import Copy, Pipe
from userproxy.tests.dataplane.rig.proxy import reset
from userproxy.tests.dataplane.rig.relay import MAX_PIPES, Relay, block, receive_all, take

if TYPE_CHECKING:
    from userproxy.tests.dataplane.rig.proxy import Proxy

SPLICED = pytest.mark.parametrize("max_pipes", [4])


def nothing_moves(*_: object) -> int:
    """What a carrier does then."""
    raise BlockingIOError


def is_silent(relay: Relay) -> bool:
    """Whether the poller tells nothing, for as long as nothing else happens."""
    relay.settle()
    return not select.select([relay.poller._epoll], [], [], 0)[0]


@SPLICED
def test_what_splice_does_not_move_is_copied(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipe, "carry", nothing_moves)
    relay.client.send(b"request")
    relay.settle()
    assert relay.backend.recv(99) == b"request"
    assert relay.client_leg.received == 7
    assert relay.rests_of == []


@SPLICED
def test_what_is_copied_then_waits_for_a_reader_too(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipe, "carry", nothing_moves)
    data = bytes(range(256)) * (1 << 15)
    sent = block(relay, data)
    assert relay.client_leg.holds
    assert is_silent(relay)
    relay.client.shutdown(net.SHUT_WR)
    monkeypatch.undo()
    assert receive_all(relay, relay.backend) == data[:sent]


@MAX_PIPES
def test_a_socket_of_which_nothing_comes_rests_and_tries_again(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for carrier in (Pipe, Copy):
            patch.setattr(carrier, "carry", nothing_moves)
        relay.client.send(b"request")
        assert is_silent(relay)
        assert relay.rests_of == [("client", False)]
        relay.client_leg.wake()
        assert is_silent(relay)
        assert relay.rests_of == [("client", False), ("client", True)]
    relay.client_leg.wake()
    relay.settle()
    assert relay.backend.recv(99) == b"request"
    relay.backend.send(b"reply")
    relay.settle()
    assert relay.client.recv(99) == b"reply"
    assert len(relay.rests_of) == 2


@MAX_PIPES
def test_a_socket_that_takes_nothing_rests_and_then_takes_all(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As TCP says when it has room but no memory.
    data = bytes(range(256)) * (1 << 15)
    sent = block(relay, data)
    relay.client.shutdown(net.SHUT_WR)
    taken = b""
    with monkeypatch.context() as patch:
        for carrier in (Pipe, Copy):
            patch.setattr(carrier, "drain", nothing_moves)
        while part := take(relay.backend):
            taken += part
        assert is_silent(relay)
        assert relay.rests_of == [("backend", False)]
    relay.backend_leg.wake()
    assert taken + receive_all(relay, relay.backend) == data[:sent]
    assert len(relay.rests_of) == 1


@MAX_PIPES
def test_one_that_hangs_up_while_it_rests_is_not_told_over_and_over(
    tcp_relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = tcp_relay
    with monkeypatch.context() as patch:
        for carrier in (Pipe, Copy):
            patch.setattr(carrier, "carry", nothing_moves)
        relay.client.send(b"x")
        relay.until(lambda: relay.rests_of)
        relay.client.close()
        relay.backend.close()
        relay.until(lambda: len(relay.rests_of) == 2)
        assert is_silent(relay)
    relay.client_leg.wake()
    relay.backend_leg.wake()
    relay.until(lambda: relay.over or len(relay.ends) == 2)


@MAX_PIPES
def test_calls_in_vain_do_not_add_up_over_a_life(relay: Relay) -> None:
    for _ in range(100):
        relay.client.send(b"x")
        relay.settle()
        relay.client_leg.on_ready(select.EPOLLIN)
    assert relay.rests_of == []


def test_a_connection_that_rests_is_told_once_and_woken_by_a_timer(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, client, there = proxy.established()
    with capture_logs() as lines, monkeypatch.context() as patch:
        for carrier in (Pipe, Copy):
            patch.setattr(carrier, "carry", nothing_moves)
        client.send(b"request")
        for _ in range(3):
            proxy.until(lambda: proxy.context.resting.members)
            proxy.timers.tick()
            assert not proxy.context.resting.members
    assert [(line["id"], line["of"]) for line in lines] == [(str(connection.number), "client")]
    assert proxy.received(there) == b"request"


def test_one_that_ends_while_it_rests_is_not_woken(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    _, client, there = proxy.established()
    with monkeypatch.context() as patch:
        for carrier in (Pipe, Copy):
            patch.setattr(carrier, "carry", nothing_moves)
        client.send(b"request")
        proxy.until(lambda: proxy.context.resting.members)
    reset(there)
    proxy.until(lambda: not proxy.table.live)
    proxy.timers.tick()
    assert not proxy.context.resting.members
