"""Sessions go from one process to the next: their clients and pods notice nothing."""

from __future__ import annotations

import os
from _socket import socket
from typing import TYPE_CHECKING

from userproxy.tests.dataplane.rig.datagrams import Exchange, address_of, readable

if TYPE_CHECKING:
    from userproxy.model.state import Serve
    from userproxy.tests.sockets import Sockets


def hand_over(former: Exchange, heir: Exchange, serve: Serve, *backends: socket) -> None:
    """What a control side does between two workers: listener and sessions' sockets stay the same."""
    former.datagrams.pause()
    given = list(former.datagrams.hand_over())
    heir.datagrams.inherit([state for state, _ in given], [os.dup(sock.fileno()) for _, sock in given])
    for _, sock in given:
        sock.close()
    heir.serve(*backends, sock=socket(fileno=os.dup(former.listener.fileno())))
    assert heir.listener.address == serve.listener


def test_a_session_goes_on_with_its_pod_its_socket_and_its_figures(
    exchange: Exchange, sockets: Sockets
) -> None:
    one, two = exchange.backend(), exchange.backend()
    serve = exchange.serve(one, two)
    client = exchange.client(serve)
    seen = exchange.exchange(client, one)
    heir = Exchange(sockets)
    heir.clock.now += 500.0
    exchange.clock.now += 2.0
    client.send(b"meanwhile")
    exchange.datagrams.pause()
    hand_over(exchange, heir, serve, two, one)
    assert exchange.reasons() == ["handed-over"]
    assert heir.asked(one) == (b"meanwhile", seen)
    one.sendto(b"and back", seen)
    assert heir.got(client) == b"and back"
    (session,) = heir.sessions
    assert (session.asked, session.answered, heir.clock.now - session.opened) == (2, 2, 2.0)
    assert session.service.report().backends[0].connections == 1
    heir.shut()


def test_an_answer_that_comes_between_the_two_is_not_lost(exchange: Exchange, sockets: Sockets) -> None:
    pod = exchange.backend()
    serve = exchange.serve(pod)
    client = exchange.client(serve)
    exchange.says(client)
    _, peer = exchange.asked(pod)
    heir = Exchange(sockets)
    exchange.datagrams.pause()
    pod.sendto(b"the answer", peer)
    hand_over(exchange, heir, serve, pod)
    assert heir.got(client) == b"the answer"
    heir.shut()


def test_a_session_whose_pod_has_left_meanwhile_goes_to_another_one(
    exchange: Exchange, sockets: Sockets
) -> None:
    one, two = exchange.backend(), exchange.backend()
    serve = exchange.serve(one)
    client = exchange.client(serve)
    exchange.exchange(client, one)
    heir = Exchange(sockets)
    hand_over(exchange, heir, serve, two)
    heir.exchange(client, two)
    assert not readable(one)
    heir.shut()


def test_sessions_of_a_listener_that_is_opened_no_more_are_closed(
    exchange: Exchange, sockets: Sockets
) -> None:
    pod = exchange.backend()
    exchange.exchange(exchange.client(exchange.serve(pod)), pod)
    heir = Exchange(sockets)
    given = list(exchange.datagrams.hand_over())
    heir.datagrams.inherit([state for state, _ in given], [sock.detach() for _, sock in given])
    heir.datagrams.sweep()
    heir.shut()
    assert address_of(pod).port
