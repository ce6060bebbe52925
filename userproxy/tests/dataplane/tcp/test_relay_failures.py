"""What breaks in the middle of a conversation is told once, of the right side, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import select
import socket as net
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.pipes import PIPE_BYTES, Pipe
from userproxy.net.sockets import RESET_ON_CLOSE
from userproxy.tests.dataplane.rig.polling import PATIENCE
from userproxy.tests.dataplane.rig.relay import MAX_PIPES, block, give

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.tests.dataplane.rig.relay import Relay

SIDES = pytest.mark.parametrize("side", ["client", "backend"])


def reset(sock: socket) -> None:
    """Close with a reset, as a process does that dies with bytes unread."""
    sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


def fill_up(relay: Relay) -> None:
    """Send to a backend that does not read until bytes are held for it."""
    relay.backend_leg.sock.setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, 1 << 14)
    relay.backend.setsockopt(net.SOL_SOCKET, net.SO_RCVBUF, 1 << 14)
    while relay.client_leg._carrier is None:
        give(relay.client, bytes(1 << 16))
        assert any(select.select([relay.poller._epoll], [relay.client], [], PATIENCE))
        relay.poller.dispatch()


@MAX_PIPES
@SIDES
def test_a_reset_of_a_silent_side_is_told_at_once(tcp_relay: Relay, side: str) -> None:
    reset(getattr(tcp_relay, side))
    tcp_relay.until(lambda: tcp_relay.over)
    assert tcp_relay.ends == [f"{side} failed"]


@MAX_PIPES
@SIDES
def test_a_reset_of_a_side_that_had_finished_is_told(tcp_relay: Relay, side: str) -> None:
    sock = getattr(tcp_relay, side)
    sock.shutdown(net.SHUT_WR)
    tcp_relay.until(lambda: tcp_relay.ends)
    reset(sock)
    tcp_relay.until(lambda: tcp_relay.over)
    assert tcp_relay.ends == [f"{side} finished", f"{side} failed"]


@MAX_PIPES
def test_a_reader_that_dies_with_bytes_held_for_it_loses_only_its_own(tcp_relay: Relay) -> None:
    relay = tcp_relay
    fill_up(relay)
    lent = relay.pipes.lent
    reset(relay.backend)
    relay.until(lambda: relay.over)
    assert relay.ends == ["backend failed"]
    assert lent == (1 if relay.pipes._limit else 0)
    assert relay.pipes.lent == 0
    assert all(pipe.held == 0 for pipe in relay.pipes._spare)


@MAX_PIPES
def test_what_was_received_before_a_reset_is_handed_on_first(tcp_relay: Relay) -> None:
    relay = tcp_relay
    relay.backend.send(b"too large")
    reset(relay.backend)
    relay.until(lambda: relay.over)
    assert relay.ends == ["backend failed"]
    assert relay.client.recv(99) == b"too large"


@MAX_PIPES
@pytest.mark.parametrize("blocked", [False, True])
def test_a_reply_that_came_before_the_reset_is_handed_on_though_sending_finds_it_first(
    tcp_relay: Relay, blocked: bool
) -> None:
    # A server that refuses an upload says why and closes with most of it unread: its reset follows its reply.
    relay = tcp_relay
    if blocked:
        fill_up(relay)
    relay.backend.send(b"too large")
    reset(relay.backend)
    backend_side, client_side = relay.backend_leg.sock, relay.client_leg.sock
    broken = select.poll()
    broken.register(backend_side, 0)
    assert broken.poll(PATIENCE * 1000)
    if blocked:
        relay.client_leg.flush()
    else:
        relay.client.send(b"more of the upload")
        assert select.select([client_side], [], [], PATIENCE)[0]
        relay.client_leg.on_ready(select.EPOLLIN)
    assert relay.ends == ["backend failed"]
    assert relay.client.recv(99) == b"too large"
    assert relay.backend_leg.received == 9
    assert all(pipe.held == 0 for pipe in relay.pipes._spare)


class Failing:
    """A carrier whose next call fails with a certain error, or that is any other carrier."""

    def __init__(self, number: int, when: str) -> None:
        self.held = 0
        self._error = OSError(number, os.strerror(number))
        self._when = when

    def fill(self, fd: int) -> int:
        """Of `Carrier`."""
        if self._when == "fill":
            raise self._error
        self.held = len(os.read(fd, 100))
        return self.held

    def carry(self, source: int, sink: int, flags: int) -> int:
        """Of `Carrier`."""
        del flags
        count = self.fill(source)
        self.drain(sink)
        return count

    def drain(self, fd: int) -> int:
        """Of `Carrier`."""
        if self._when == "drain":
            raise self._error
        os.write(fd, bytes(self.held))
        self.held = 0
        return 0


class Pool:
    """Has a failing carrier at hand, and notes who takes it away and brings it back."""

    def __init__(self, relay: Relay, carrier: Failing) -> None:
        self.lent: list[object] = []
        self.back: list[object] = []
        self.at_hand = carrier
        relay.client_leg._pipes = self  # type: ignore[assignment]

    def take(self) -> Failing:
        """Of `PipePool`."""
        self.lent.append(self.at_hand)
        return self.at_hand

    def discard(self) -> None:
        """Of `PipePool`."""
        self.back.append(self.take())


@pytest.mark.parametrize("max_pipes", [0])
@pytest.mark.parametrize(
    "number", [errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EPIPE, errno.ENOMEM]
)
@pytest.mark.parametrize(("when", "side"), [("fill", "client"), ("drain", "backend")])
def test_every_error_ends_the_connection_once_and_names_the_side(
    relay: Relay, number: int, when: str, side: str
) -> None:
    pool = Pool(relay, Failing(number, when))
    relay.client.send(b"x")
    relay.settle()
    assert relay.ends == [f"{side} failed"]
    assert pool.back == pool.lent
    assert bool(pool.at_hand.held) == bool(pool.lent), "what holds bytes is at hand for nobody"


@pytest.mark.parametrize("max_pipes", [0])
def test_a_call_in_vain_is_not_an_end(relay: Relay) -> None:
    relay.client_leg.on_ready(select.EPOLLIN)
    relay.client_leg.on_ready(select.EPOLLOUT)
    assert relay.ends == []
    assert relay.pipes.lent == 0
    pool = Pool(relay, Failing(errno.EAGAIN, "fill"))
    relay.client_leg.on_ready(select.EPOLLIN)
    assert relay.ends == []
    assert pool.lent == []


@MAX_PIPES
def test_a_reader_that_still_has_no_room_is_waited_for(relay: Relay) -> None:
    block(relay, bytes(8 * PIPE_BYTES))
    carrier = relay.client_leg._carrier
    assert carrier is not None
    held = carrier.held
    relay.backend_leg.on_ready(select.EPOLLOUT)
    assert relay.client_leg._carrier is carrier
    assert carrier.held == held
    assert relay.ends == []


@pytest.mark.parametrize("max_pipes", [4])
def test_a_leg_that_has_gone_wrong_gives_its_connection_up(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Pipe, "carry", carry)
    relay.client.send(b"x")
    relay.settle()
    assert relay.ends == ["aborted"]


@MAX_PIPES
def test_events_of_the_same_round_do_not_reach_a_connection_that_is_over(tcp_relay: Relay) -> None:
    for side in ("client", "backend"):
        reset(getattr(tcp_relay, side))
    tcp_relay.until(lambda: tcp_relay.over)
    tcp_relay.settle()
    assert len(tcp_relay.ends) == 1
