"""A client reaches a backend, or another one, or is told at once; nothing of an attempt is left behind."""

from __future__ import annotations

import errno
import select
import socket as net
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.lifecycle import Event, State
from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.net import sockets
from userproxy.tests.dataplane.rig.proxy import Narrow, NarrowAndSlow, Slow, is_reset, segments_sent

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.tests.dataplane.rig.proxy import Proxy


@pytest.fixture(params=[False, True], ids=["local", "remote"])
def distance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(sockets, "socket", Slow)


@pytest.mark.usefixtures("distance")
def test_a_request_and_its_reply_travel_and_all_is_given_back(proxy: Proxy) -> None:
    backend = proxy.listening()
    proxy.serve(backend)
    connection, client = proxy.accept()
    client.send(b"request")
    client.shutdown(net.SHUT_WR)
    there = proxy.taken(backend)
    assert proxy.received(there) == b"request"
    assert proxy.received(there) == b""
    assert connection.state is State.CLIENT_FINISHED
    assert not proxy.context.dialling.waiting.members
    there.send(b"the reply")
    there.close()
    assert proxy.received(client) == b"the reply"
    assert proxy.received(client) == b""
    assert connection.reason is Reason.CLIENT_FIN
    assert proxy.table.counters.connections_ended == {Reason.CLIENT_FIN: 1}
    assert proxy.nothing_is_left()


@pytest.mark.usefixtures("distance")
def test_a_backend_that_refuses_is_left_for_the_next_and_the_client_does_not_notice(proxy: Proxy) -> None:
    good = proxy.listening()
    proxy.serve(proxy.bound(), proxy.bound(), good)
    connection, client = proxy.accept()
    there = proxy.taken(good)
    assert proxy.reaches(connection, State.ESTABLISHED)
    assert connection.backend is not None
    assert str(connection.backend.address) == str(Address(*good.getsockname()))
    assert [live.connections for live in proxy.service.backends] == [0, 0, 1]
    client.send(b"x")
    assert proxy.received(there) == b"x"


@pytest.mark.usefixtures("distance")
def test_when_all_refuse_each_was_tried_once_and_the_client_is_reset(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.serve(*(proxy.bound() for _ in range(4)))
    dialled = []
    monkeypatch.setattr(
        proxy.service, "dial_failed", lambda live, error, **_: dialled.append((str(live.address), error))
    )
    connection, client = proxy.accept()
    assert proxy.reaches(connection, State.CLOSED)
    assert sorted(dialled) == sorted(
        (str(live.address), errno.ECONNREFUSED) for live in proxy.service.backends
    )
    assert connection.reason is Reason.DIAL_FAILED
    assert is_reset(proxy, client)
    assert proxy.nothing_is_left()


@pytest.mark.usefixtures("distance")
def test_a_client_that_speaks_first_is_heard_by_the_backend_that_takes_it(proxy: Proxy) -> None:
    good = proxy.listening()
    proxy.serve(proxy.bound(), proxy.bound(), good)
    connection, client = proxy.accept(b"request")
    there = proxy.taken(good)
    assert proxy.received(there) == b"request"
    assert (connection.bytes_up, proxy.pipes.lent) == (7, 0)
    client.send(b" and more")
    assert proxy.received(there) == b" and more"
    there.send(b"reply")
    assert proxy.received(client) == b"reply"
    assert connection.bytes_up == 16


def test_what_it_says_first_goes_out_with_the_handshake(proxy: Proxy) -> None:
    # No round through the poller, and no ACK of its own: the kernel counts the segments (tcp(7), TCP_INFO).
    backend = proxy.listening()
    proxy.serve(backend)
    connection, _ = proxy.accept(b"request")
    assert connection.backend_leg is not None
    assert segments_sent(connection.backend_leg.sock) == 2, "the SYN, and the request with the ACK"
    assert proxy.taken(backend).recv(99) == b"request"


@pytest.mark.parametrize("kind", [Narrow, NarrowAndSlow])
def test_a_flood_before_the_backend_answers_waits_in_order(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, kind: type[socket]
) -> None:
    monkeypatch.setattr(sockets, "socket", kind)
    backend = proxy.bound()
    backend.setsockopt(net.SOL_SOCKET, net.SO_RCVBUF, 4096)
    backend.listen()
    proxy.serve(backend)
    flood = bytes(range(256)) * 1024
    connection, client = proxy.accept(flood[: 1 << 16])
    there = proxy.taken(backend)
    assert proxy.reaches(connection, State.ESTABLISHED)
    assert connection.client_leg is not None
    assert connection.client_leg.holds, "it did not all go at once"
    for start in range(1 << 16, len(flood), 1 << 16):
        proxy.until(lambda: select.select([], [client], [], 0)[1])
        assert client.send(flood[start : start + (1 << 16)]) == 1 << 16
    got = b""
    while len(got) < len(flood):
        got += proxy.received(there)
    assert got == flood
    assert connection.bytes_up == len(flood)
    assert proxy.pipes.lent == 0


@pytest.mark.usefixtures("distance")
def test_what_it_says_before_it_finishes_and_the_end_both_arrive(proxy: Proxy) -> None:
    backend = proxy.listening()
    proxy.serve(backend)
    connection, _ = proxy.accept(b"all", finished=True)
    there = proxy.taken(backend)
    assert proxy.received(there) == b"all"
    assert proxy.received(there) == b""
    assert proxy.reaches(connection, State.CLIENT_FINISHED)


def test_killed_while_it_waits_for_a_backend_it_gives_its_first_bytes_up(proxy: Proxy) -> None:
    proxy.serve(proxy.silent())
    connection, client = proxy.accept(b"request")
    assert proxy.pipes.lent == 1
    connection.end(Event.KILLED)
    assert is_reset(proxy, client)
    assert proxy.nothing_is_left()


def test_without_any_backend_the_client_is_reset_at_once(proxy: Proxy) -> None:
    connection, client = proxy.accept()
    assert connection.reason is Reason.NO_BACKEND
    assert is_reset(proxy, client)


def test_a_backend_that_does_not_answer_has_a_second(proxy: Proxy) -> None:
    good = proxy.listening()
    proxy.serve(proxy.silent(), good)
    connection, _ = proxy.accept()
    assert connection.state is State.CONNECTING
    proxy.clock.now += 0.99
    proxy.timers.tick()
    assert connection.backend is proxy.service.backends[0]
    proxy.clock.now += 0.01
    proxy.timers.tick()
    assert connection.backend is proxy.service.backends[1]
    assert proxy.reaches(connection, State.ESTABLISHED)
    assert [live.connections for live in proxy.service.backends] == [0, 1]
    proxy.timers.tick()
    assert proxy.timers.delays == [], "nobody is dialling any more"


def test_five_seconds_are_all_there_is_for_dialling(proxy: Proxy) -> None:
    proxy.serve(*(proxy.silent() for _ in range(9)))
    connection, client = proxy.accept()
    for seconds in range(1, 6):
        assert connection.state is State.CONNECTING, f"after {seconds - 1} s"
        proxy.clock.now += 1.0
        proxy.timers.tick()
    assert connection.reason is Reason.DIAL_FAILED
    assert is_reset(proxy, client)


def test_a_client_accepted_after_a_long_silence_has_its_time(proxy: Proxy) -> None:
    # A listener that closes accepts outside of a round: the poller's time may be old then.
    proxy.clock.now += 60.0
    connection, _, _ = proxy.established()
    assert connection.opened == proxy.clock.now


def test_how_long_a_backend_took_is_known(proxy: Proxy) -> None:
    proxy.clock.now += 60.0
    connection, _, _ = proxy.established()
    assert connection.backend is not None
    assert connection.backend.latency == 0.0


def test_how_long_a_distant_backend_took_is_known(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "socket", Slow)
    proxy.serve(proxy.listening())
    connection, _ = proxy.accept()
    proxy.clock.now += 0.25
    assert proxy.reaches(connection, State.ESTABLISHED)
    assert connection.backend is not None
    assert connection.backend.latency == 0.25


def test_without_a_file_descriptor_it_waits_and_no_backend_is_blamed(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_socket(*_: int) -> socket:
        raise OSError(errno.EMFILE, "Too many open files")

    backend = proxy.listening()
    proxy.serve(backend)
    with monkeypatch.context() as patch:
        patch.setattr(sockets, "socket", no_socket)
        connection, _ = proxy.accept()
    assert [error.errno for error in proxy.starved] == [errno.EMFILE]
    assert connection.state is State.CONNECTING
    assert proxy.service.backends[0].connections == 0
    assert not proxy.service.counters.failed_dials
    connection.open()
    assert proxy.reaches(connection, State.ESTABLISHED)
    assert proxy.service.backends[0].connections == 1


def test_one_that_was_killed_while_it_waited_is_not_opened(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_socket(*_: int) -> socket:
        raise OSError(errno.EMFILE, "Too many open files")

    proxy.serve(proxy.listening())
    with monkeypatch.context() as patch:
        patch.setattr(sockets, "socket", no_socket)
        connection, _ = proxy.accept()
    connection.end(Event.KILLED)
    connection.open()
    assert connection.source is None
    assert proxy.nothing_is_left()


def test_a_socket_that_the_system_forbids_is_one_more_failed_dial(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_socket(*_: int) -> socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    proxy.serve(proxy.listening())
    monkeypatch.setattr(sockets, "socket", no_socket)
    connection, client = proxy.accept()
    assert connection.reason is Reason.DIAL_FAILED
    assert is_reset(proxy, client)


def test_a_dial_that_goes_wrong_resets_its_client_and_keeps_nothing(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "over max_user_watches")

    proxy.serve(proxy.listening())
    with monkeypatch.context() as patch:
        patch.setattr(proxy.poller, "register", no_room)
        connection, client = proxy.accept()
    assert connection.reason is Reason.FAILED
    assert is_reset(proxy, client)
    assert proxy.nothing_is_left()


def test_killed_while_dialling_it_lets_go_of_the_backend(proxy: Proxy) -> None:
    proxy.serve(proxy.silent())
    connection, client = proxy.accept()
    connection.end(Event.KILLED)
    assert is_reset(proxy, client)
    assert proxy.nothing_is_left()
