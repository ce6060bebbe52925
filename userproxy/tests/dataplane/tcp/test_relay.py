"""Bytes go both ways, whole and in order, whatever the two sides do, and whatever carries them."""

from __future__ import annotations

import os
import select
import socket as net
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.dataplane.tcp.pipes import PIPE_BYTES
from userproxy.tests.dataplane.rig.polling import PATIENCE
from userproxy.tests.dataplane.rig.relay import MAX_PIPES, Relay, block, give, receive_all, take
from userproxy.tests.sockets import Sockets

if TYPE_CHECKING:
    from _socket import socket


# No part of it repeats, so that nothing can get lost or change places unnoticed.
PATTERN = os.urandom(1 << 21)


@MAX_PIPES
def test_bytes_go_both_ways_and_are_counted(relay: Relay) -> None:
    relay.client.send(b"request")
    relay.settle()
    assert relay.backend.recv(99) == b"request"
    relay.clock.now += 7
    relay.backend.send(b"the reply")
    relay.settle()
    assert relay.client.recv(99) == b"the reply"
    assert (relay.client_leg.received, relay.backend_leg.received) == (7, 9)
    assert relay.backend_leg.last_received - relay.client_leg.last_received == 7
    assert relay.ends == []


@MAX_PIPES
def test_an_idle_connection_holds_no_pipe(relay: Relay) -> None:
    relay.client.send(b"x")
    relay.settle()
    assert relay.pipes.lent == 0
    assert len(relay.pipes._spare) <= 1


@MAX_PIPES
def test_a_side_that_has_finished_still_receives(relay: Relay) -> None:
    relay.client.send(b"last words")
    relay.client.shutdown(net.SHUT_WR)
    relay.settle()
    assert relay.ends == ["client finished"]
    assert (relay.backend.recv(99), relay.backend.recv(99)) == (b"last words", b"")
    relay.backend.send(b"the answer")
    relay.settle()
    assert relay.client.recv(99) == b"the answer"
    relay.backend.shutdown(net.SHUT_WR)
    relay.settle()
    assert relay.client.recv(99) == b""
    assert relay.ends == ["client finished", "backend finished"]


@MAX_PIPES
@pytest.mark.parametrize("size", [1, 1449, 100_000])
def test_last_bytes_and_the_end_arrive_together_over_tcp(tcp_relay: Relay, size: int) -> None:
    assert give(tcp_relay.backend, PATTERN[:size]) == size
    tcp_relay.backend.shutdown(net.SHUT_WR)
    tcp_relay.until(lambda: tcp_relay.ends)
    received = b""
    while select.select([tcp_relay.client], [], [], PATIENCE)[0] and (part := tcp_relay.client.recv(1 << 20)):
        received += part
    assert received == PATTERN[:size]
    assert tcp_relay.ends == ["backend finished"]


@MAX_PIPES
def test_the_end_of_a_side_that_was_silent_is_news(relay: Relay) -> None:
    relay.clock.now += 600
    relay.client.shutdown(net.SHUT_WR)
    relay.settle()
    assert relay.client_leg.last_received == relay.clock.now


@MAX_PIPES
def test_a_reader_that_stops_stops_the_sender_and_then_gets_all(relay: Relay) -> None:
    data = PATTERN * 4
    sent = block(relay, data)
    assert sent < 2 * PIPE_BYTES
    carrier = relay.client_leg._carrier
    assert carrier is not None
    assert carrier.held > 0
    assert relay.pipes.lent == (1 if relay.pipes._limit else 0)
    relay.client.shutdown(net.SHUT_WR)
    relay.settle()
    assert relay.ends == [], "the end comes after the bytes"
    assert receive_all(relay, relay.backend) == data[:sent]
    assert relay.ends == ["client finished"]
    assert relay.pipes.lent == 0


@MAX_PIPES
def test_a_blocked_direction_does_not_hold_up_the_other_one(relay: Relay) -> None:
    block(relay, bytes(8 * PIPE_BYTES))
    for number in range(3):
        relay.backend.send(bytes([number]))
        relay.settle()
        assert relay.client.recv(9) == bytes([number])


@MAX_PIPES
def test_a_connection_that_waits_for_a_reader_is_not_called(relay: Relay) -> None:
    block(relay, bytes(8 * PIPE_BYTES))
    assert not select.select([relay.poller._epoll], [], [], 0)[0]


@MAX_PIPES
def test_nor_is_one_whose_reader_has_caught_up(relay: Relay) -> None:
    block(relay, PATTERN * 4)
    for _ in range(100):
        while take(relay.backend):
            pass
        relay.settle()
    assert relay.client_leg._carrier is None
    relay.client.send(b"x")
    relay.settle()
    assert relay.backend.recv(9) == b"x"
    assert not select.select([relay.poller._epoll], [], [], 0)[0]


@MAX_PIPES
def test_a_slow_reader_counts_as_activity(relay: Relay) -> None:
    block(relay, bytes(8 * PIPE_BYTES))
    relay.poller.now += 50
    received = relay.client_leg.received
    while take(relay.backend):
        pass
    relay.client_leg.flush()
    assert relay.client_leg.received == received
    assert relay.client_leg.last_received == relay.poller.now


def hang_up_behind_held_bytes(relay: Relay) -> bytes:
    """Have both sides finish while the backend does not read; returns what the client had sent it."""
    data = PATTERN * 4
    sent = block(relay, data)
    relay.backend.shutdown(net.SHUT_WR)
    relay.settle()
    relay.client.close()  # both directions of the client's socket are shut now, and epoll insists on that
    return data[:sent]


@MAX_PIPES
def test_a_hang_up_behind_held_bytes_is_not_told_over_and_over(relay: Relay) -> None:
    held = hang_up_behind_held_bytes(relay)
    relay.poller.dispatch()
    assert not select.select([relay.poller._epoll], [], [], 0)[0]
    assert relay.ends == ["backend finished"]
    assert receive_all(relay, relay.backend) == held
    assert relay.ends == ["backend finished", "client finished"]


@MAX_PIPES
def test_a_hang_up_that_is_older_than_the_room_it_waited_for_stops_nothing(relay: Relay) -> None:
    held = hang_up_behind_held_bytes(relay)
    taken = b""
    while relay.client_leg._carrier is not None:
        taken += relay.backend.recv(1 << 20)
        relay.client_leg.flush()  # the other side's turn comes first in this round
    relay.client_leg.on_ready(select.EPOLLHUP)
    assert taken + receive_all(relay, relay.backend) == held
    assert relay.ends == ["backend finished", "client finished"]


@MAX_PIPES
@pytest.mark.parametrize("registered", [True, False])
def test_a_leg_takes_over_the_socket_that_was_dialled(
    sockets: Sockets, max_pipes: int, registered: bool
) -> None:
    relay = Relay(sockets, max_pipes)
    relay.poller.unregister(relay.backend_leg.fd)
    if registered:
        relay.poller.register(relay.backend_leg.fd, select.EPOLLOUT, relay.client_leg)
    relay.backend_leg.start(registered=registered)
    relay.backend.send(b"x")
    relay.settle()
    assert relay.client.recv(9) == b"x"
    relay.close()
    relay.pipes.close()


# --- any conversation

SIDES = st.sampled_from(["client", "backend"])
SIZES = st.one_of(st.integers(1, 20), st.integers(1, 300_000))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("give"), SIDES, SIZES),
        st.tuples(st.just("take"), SIDES, SIZES),
        st.tuples(st.just("finish"), SIDES, st.just(0)),
        st.tuples(st.just("serve"), SIDES, st.just(0)),
    ),
    max_size=30,
)


class Side:
    """One far end: what it has sent so far, and what has reached it."""

    def __init__(self, sock: socket) -> None:
        self.sock = sock
        self.sent = 0
        self.finished = False
        self.received = bytearray()
        self.ended = False

    def step(self, what: str, size: int) -> None:
        """Do one thing that an application may do."""
        if what == "give" and not self.finished:
            self.sent += give(self.sock, PATTERN[self.sent : self.sent + size])
        elif what == "take" and not self.ended:
            part = take(self.sock, size)
            self.received += part or b""
            self.ended = part == b""
        elif what == "finish" and not self.finished:
            self.finished = True
            self.sock.shutdown(net.SHUT_WR)


@MAX_PIPES
@given(steps=STEPS, room=st.sampled_from([1, 100_000]))
def test_whatever_both_sides_do_all_bytes_arrive_whole_and_in_order(
    max_pipes: int, steps: list[tuple[str, str, int]], room: int
) -> None:
    with ExitStack() as stack:
        relay = Relay(Sockets(stack), max_pipes)
        for sock in (relay.client, relay.backend, relay.client_leg.sock, relay.backend_leg.sock):
            sock.setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, room)
        sides = {"client": Side(relay.client), "backend": Side(relay.backend)}
        for what, who, size in steps:
            if what == "serve":
                relay.poller.dispatch()
            else:
                sides[who].step(what, size)
        for side in sides.values():
            side.step("finish", 0)
        while not all(side.ended for side in sides.values()):
            relay.settle()
            for side in sides.values():
                side.step("take", 1 << 20)
        for side, other in (sides.values(), reversed(sides.values())):
            assert side.received == PATTERN[: other.sent]
        assert relay.client_leg.received == sides["client"].sent
        assert relay.backend_leg.received == sides["backend"].sent
        assert sorted(relay.ends) == ["backend finished", "client finished"]
        relay.close()
        assert relay.pipes.lent == 0
        relay.pipes.close()
