"""TCP's urgent data: every byte arrives, in order, the urgent one as urgent; and nothing spins."""

from __future__ import annotations

import contextlib
import select
import socket as net
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.dataplane.tcp.lifecycle import State
from userproxy.model.endings import Reason
from userproxy.model.settings import Settings
from userproxy.net.sockets import RESET_ON_CLOSE, at_urgent_mark, take_urgent_inline
from userproxy.tests.dataplane.rig.polling import PATIENCE
from userproxy.tests.dataplane.rig.relay import MAX_PIPES, Relay, block, fill, take, unacknowledged
from userproxy.tests.sockets import Sockets

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.tests.dataplane.rig.proxy import Proxy

DIRECTIONS = pytest.mark.parametrize("direction", ["up", "down"])


def ends_of(relay: Relay, direction: str) -> tuple[socket, socket]:
    """Who sends, and who receives."""
    ends = relay.client, relay.backend
    return ends if direction == "up" else ends[::-1]


def speak(sock: socket, *words: bytes) -> None:
    """Send these; the last byte of one that ends with an exclamation mark is urgent."""
    for word in words:
        assert sock.send(word, net.MSG_OOB if word.endswith(b"!") else 0) == len(word)


def hear(relay: Relay, sock: socket, count: int) -> bytes:
    """So many bytes, the urgent ones where they stand in the stream."""
    take_urgent_inline(sock)
    heard = b""
    while len(heard) < count:
        part = hear_some(relay, sock)
        assert part, "it ended before"
        heard += part
    return heard


def hear_some(relay: Relay, sock: socket, most: int = 1 << 20) -> bytes:
    """The next bytes; empty for the end."""
    waiting = [relay.poller._epoll.fileno(), sock.fileno()]
    while (part := take(sock, most)) is None:
        assert select.select(waiting, [], [], PATIENCE)[0], "nothing more happens"
        relay.poller.dispatch()
    return part


def await_urgent(relay: Relay, sock: socket) -> None:
    """Serve what is ready until a socket is told of an urgent byte."""
    told = select.poll()
    told.register(sock, select.POLLPRI)
    told.register(relay.poller._epoll, select.POLLIN)
    while (sock.fileno(), select.POLLPRI) not in told.poll(PATIENCE * 1000):
        relay.poller.dispatch()


@MAX_PIPES
@DIRECTIONS
@pytest.mark.parametrize(
    "words",
    [
        [b"before", b"!", b"after"],
        [b"before!", b"after"],
        [b"!"],
        [b"!", b"after"],
        [b"one!", b"two!", b"three!", b"and on"],
        [b"x" * 100_000, b"!", b"y" * 100_000],
    ],
)
def test_all_bytes_arrive_in_order_and_it_is_silent_then(
    tcp_relay: Relay, direction: str, words: list[bytes]
) -> None:
    sender, receiver = ends_of(tcp_relay, direction)
    take_urgent_inline(receiver)
    speak(sender, *words)
    spoken = b"".join(words)
    assert hear(tcp_relay, receiver, len(spoken)) == spoken
    tcp_relay.settle()
    speak(receiver, b"reply")
    assert hear(tcp_relay, sender, 5) == b"reply"
    received = {"up": tcp_relay.client_leg.received, "down": tcp_relay.backend_leg.received}
    assert received[direction] == len(spoken)
    assert tcp_relay.ends == []
    assert tcp_relay.rests_of == []


@MAX_PIPES
@DIRECTIONS
def test_marks_in_a_row_lose_no_byte(tcp_relay: Relay, direction: str) -> None:
    # The second one comes while the first is next to be read.
    sender, receiver = ends_of(tcp_relay, direction)
    take_urgent_inline(receiver)
    speak(sender, b"!", b"!", b"!")
    assert hear(tcp_relay, receiver, 3) == b"!!!"


@MAX_PIPES
@DIRECTIONS
def test_it_is_urgent_on_the_other_side_too(tcp_relay: Relay, direction: str) -> None:
    sender, receiver = ends_of(tcp_relay, direction)
    speak(sender, b"before", b"!", b"after")
    assert hear_some(tcp_relay, receiver) == b"before"
    await_urgent(tcp_relay, receiver)
    assert receiver.recv(1, net.MSG_OOB) == b"!"
    assert hear_some(tcp_relay, receiver) == b"after", "and nowhere else"


@MAX_PIPES
@DIRECTIONS
@pytest.mark.parametrize("words", [[b"last!"], [b"!"], [b"before", b"!", b"behind"], [b"!", b"y" * 100_000]])
def test_the_end_comes_after_what_is_behind_the_mark(
    tcp_relay: Relay, direction: str, words: list[bytes]
) -> None:
    sender, receiver = ends_of(tcp_relay, direction)
    speak(sender, *words)
    sender.shutdown(net.SHUT_WR)
    spoken = b"".join(words)
    assert hear(tcp_relay, receiver, len(spoken)) == spoken
    assert hear_some(tcp_relay, receiver) == b""
    tcp_relay.settle()
    speak(receiver, b"and", b"!", b"back")
    assert hear(tcp_relay, sender, 8) == b"and!back"
    assert tcp_relay.ends == ["client finished" if direction == "up" else "backend finished"]
    assert tcp_relay.rests_of == []


@MAX_PIPES
@pytest.mark.parametrize("finished", [False, True])
def test_it_waits_its_turn_behind_what_the_other_side_does_not_take(tcp_relay: Relay, finished: bool) -> None:
    relay = tcp_relay
    for sock in (relay.backend_leg.sock, relay.client):
        sock.setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, 1 << 14)
    relay.backend.setsockopt(net.SOL_SOCKET, net.SO_RCVBUF, 1 << 14)
    data = bytes(range(256)) * (1 << 15)
    sent = block(relay, data)
    relay.client.setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, 1 << 20)
    speak(relay.client, b"!", b"behind")
    if finished:
        relay.client.shutdown(net.SHUT_WR)
    relay.settle()
    assert hear(relay, relay.backend, sent + 7) == data[:sent] + b"!behind"
    if finished:
        assert hear_some(relay, relay.backend) == b""


@MAX_PIPES
def test_an_urgent_byte_that_finds_no_room_is_held(tcp_relay: Relay) -> None:
    relay = tcp_relay
    block(relay, bytes(1 << 24))
    relay.backend_leg.on_ready(select.EPOLLOUT)
    reader, far = relay.backend, relay.backend_leg
    while relay.client_leg.holds:  # until there is just room for what was held
        assert take(reader)
        far.on_ready(select.EPOLLOUT)
    fill(far.sock)  # and none again
    while unacknowledged(relay.client) or take(relay.client_leg.sock):  # what the client had sent before
        take(relay.client_leg.sock)
    speak(relay.client, b"!", b"behind")
    relay.until(lambda: relay.client_leg.holds)
    assert not select.select([relay.poller._epoll], [], [], 0)[0]
    take_urgent_inline(reader)
    heard = b""
    while not heard.endswith(b"behind"):
        heard += hear_some(relay, reader)
    assert heard.endswith(b"\0!behind")


@MAX_PIPES
@DIRECTIONS
def test_what_is_behind_the_mark_is_handed_on_before_a_reset(tcp_relay: Relay, direction: str) -> None:
    sender, receiver = ends_of(tcp_relay, direction)
    take_urgent_inline(receiver)
    speak(sender, b"before", b"!", b"behind")
    sender.setsockopt(net.SOL_SOCKET, net.SO_LINGER, RESET_ON_CLOSE)
    sender.close()
    tcp_relay.until(lambda: tcp_relay.over)
    heard = b""
    while select.select([receiver], [], [], PATIENCE)[0] and (part := receiver.recv(99)):
        heard += part
    assert heard == b"before!behind"


@MAX_PIPES
def test_so_it_is_if_sending_finds_the_reset_first(tcp_relay: Relay) -> None:
    relay = tcp_relay
    take_urgent_inline(relay.client)
    speak(relay.backend, b"too", b"!", b"large")
    relay.backend.setsockopt(net.SOL_SOCKET, net.SO_LINGER, RESET_ON_CLOSE)
    relay.backend.close()
    broken = select.poll()
    broken.register(relay.backend_leg.sock, 0)
    assert broken.poll(PATIENCE * 1000)
    relay.client.send(b"more of the upload")
    assert select.select([relay.client_leg.sock], [], [], PATIENCE)[0]
    relay.client_leg.on_ready(select.EPOLLIN)
    assert relay.ends == ["backend failed"]
    heard = b""
    while select.select([relay.client], [], [], PATIENCE)[0] and (part := relay.client.recv(99)):
        heard += part
    assert heard == b"too!large"


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("words", [[b"!"], [b"user!", b"name"], [b"!", b"!", b"more"]])
def test_what_a_client_says_first_may_be_urgent(proxy: Proxy, words: list[bytes], finished: bool) -> None:
    backend = proxy.listening()
    take_urgent_inline(backend)
    proxy.serve(proxy.bound(), backend)
    connection, client = proxy.accept(b"I ")
    speak(client, *words)
    if finished:
        client.shutdown(net.SHUT_WR)
    there = proxy.taken(backend)
    spoken = b"I " + b"".join(words)
    heard = b""
    while len(heard) < len(spoken):
        heard += proxy.received(there)
    assert heard == spoken
    if finished:
        assert proxy.received(there) == b""
        assert proxy.reaches(connection, State.CLIENT_FINISHED)
    there.send(b"!", net.MSG_OOB)
    there.close()
    take_urgent_inline(client)
    assert proxy.received(client) == b"!"
    assert proxy.received(client) == b""
    client.close()
    assert proxy.reaches(connection, State.CLOSED)
    assert connection.reason in {Reason.CLIENT_FIN, Reason.BACKEND_FIN}


@pytest.mark.parametrize("hedged", [False, True], ids=["dialled", "hedged"])
def test_a_backend_may_say_one_urgent_thing_after_another_from_the_first_moment(
    proxy: Proxy, hedged: bool
) -> None:
    # No sweep has looked at the connection, and each comes while the one before is next to be read.
    backend = proxy.listening()
    if hedged:
        proxy.serve(proxy.silent(), backend, settings=Settings(hedged_dial=0.25))
    else:
        proxy.serve(backend)
    _, client = proxy.accept()
    proxy.clock.now += 0.25
    proxy.timers.tick()
    there = proxy.taken(backend)
    take_urgent_inline(client)
    speak(there, b"!", b"!", b"behind", b"!")
    there.close()
    heard = b""
    while part := proxy.received(client):
        heard += part
    assert heard == b"!!behind!"


def test_a_socket_without_urgent_bytes_is_never_at_their_mark(sockets: Sockets) -> None:
    near, _ = sockets.pair()
    assert not at_urgent_mark(near.fileno())


# --- any conversation

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["say", "cry"]), st.integers(0, 1), st.integers(1, 40_000)),
        st.tuples(st.sampled_from(["listen", "finish", "serve"]), st.integers(0, 1), st.just(0)),
    ),
    max_size=30,
)


class Side:
    """One far end: what it has sent so far, and what has reached it."""

    def __init__(self, sock: socket) -> None:
        self.sock = sock
        self.said = bytearray()
        self.heard = bytearray()
        self.finished = False
        self.ended = False

    def step(self, what: str, size: int) -> None:
        """Do one thing that an application may do."""
        if what == "listen":
            self.listen()
        elif what == "finish" and not self.finished:
            self.finished = True
            self.sock.shutdown(net.SHUT_WR)
        elif what in {"say", "cry"} and not self.finished:
            data = bytes((len(self.said) + place) % 251 for place in range(size))
            with contextlib.suppress(BlockingIOError):
                self.said += data[: self.sock.send(data, net.MSG_OOB if what == "cry" else 0)]

    def listen(self) -> None:
        """Take what has come."""
        while part := take(self.sock):
            self.heard += part
        self.ended = part == b""


@MAX_PIPES
@given(steps=STEPS)
def test_whatever_is_urgent_in_it_every_conversation_arrives_whole(
    max_pipes: int, steps: list[tuple[str, int, int]]
) -> None:
    with ExitStack() as stack:
        relay = Relay(Sockets(stack), max_pipes, tcp=True)
        for sock in (relay.client, relay.backend):
            take_urgent_inline(sock)
        sides = Side(relay.client), Side(relay.backend)
        for what, who, size in steps:
            if what == "serve":
                relay.poller.dispatch()
            else:
                sides[who].step(what, size)
        for side in sides:
            side.step("finish", 0)
        while not all(side.ended for side in sides):
            waiting = [side.sock.fileno() for side in sides if not side.ended]
            waiting.append(relay.poller._epoll.fileno())
            assert select.select(waiting, [], [], PATIENCE)[0], "nothing more happens"
            relay.poller.dispatch()
            for side in sides:
                side.listen()
        assert [side.heard for side in sides] == [side.said for side in reversed(sides)]
        relay.settle()
        assert relay.rests_of == []
        relay.close()
        assert relay.pipes.lent == 0
        relay.pipes.close()
