"""Who is let in, who gives way, and what one client can take of the others' time."""

from __future__ import annotations

import errno
import socket as net
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.udp.listener import listen
from userproxy.model.address import Address
from userproxy.model.service import ServicePortName
from userproxy.model.settings import Settings
from userproxy.tests.dataplane.rig.datagrams import Exchange, address_of, readable

if TYPE_CHECKING:
    from userproxy.tests.sockets import Sockets

OTHER = ServicePortName("default", "other")


def test_a_port_that_something_else_has_is_refused(sockets: Sockets) -> None:
    taken = sockets.keep(listen(Address("127.0.0.1", 0)))
    with pytest.raises(OSError, match=r".*") as caught:
        listen(address_of(taken))
    assert caught.value.errno == errno.EADDRINUSE


def test_a_crowd_waits_in_a_large_buffer(sockets: Sockets) -> None:
    sock = sockets.keep(listen(Address("127.0.0.1", 0)))
    plain = sockets.keep(net.socket(net.AF_INET, net.SOCK_DGRAM))
    for option in (net.SO_RCVBUF, net.SO_SNDBUF):
        assert sock.getsockopt(net.SOL_SOCKET, option) >= plain.getsockopt(net.SOL_SOCKET, option)


def test_where_there_is_no_room_the_session_that_was_used_least_recently_gives_way(sockets: Sockets) -> None:
    exchange = Exchange(sockets, most=3)
    pod = exchange.backend()
    serve, other = exchange.serve(pod), exchange.serve(pod, name=OTHER)
    first, second, third, fourth, fifth = (
        exchange.client(one) for one in (serve, other, serve, other, serve)
    )
    for client in (first, second, third):
        exchange.exchange(client, pod)
    exchange.exchange(first, pod)
    exchange.exchange(fourth, pod)
    exchange.exchange(fifth, pod)
    assert [one.client for one in exchange.ended] == [address_of(second), address_of(third)]
    assert exchange.reasons() == ["evicted", "evicted"]
    assert exchange.datagrams.count == 3
    exchange.shut()


def test_a_service_s_own_limit_makes_its_own_sessions_give_way(exchange: Exchange) -> None:
    pod = exchange.backend()
    other = exchange.serve(pod, name=OTHER)
    spared = exchange.client(other)
    exchange.exchange(spared, pod)
    serve = exchange.serve(pod, settings=Settings(max_connections=2))
    clients = [exchange.client(serve) for _ in range(3)]
    for client in clients:
        exchange.exchange(client, pod)
    assert [one.client for one in exchange.ended] == [address_of(clients[0])]


def test_a_client_ip_with_as_many_sessions_as_it_may_have_gets_no_more(exchange: Exchange) -> None:
    pod = exchange.backend()
    serve = exchange.serve(pod, settings=Settings(max_connections_per_client=1))
    first, second = exchange.client(serve), exchange.client(serve)
    exchange.exchange(first, pod)
    exchange.says(second)
    exchange.settle()
    assert not readable(pod)
    assert exchange.counters.clients_turned_away == 1
    exchange.exchange(first, pod)


def test_a_flood_takes_a_bounded_part_of_a_round(exchange: Exchange) -> None:
    pod = exchange.backend()
    client = exchange.client(exchange.serve(pod))
    for _ in range(100):
        client.send(b"!")
    exchange.poller._round()
    (session,) = exchange.sessions
    assert 0 < session.asked < 100
    exchange.settle()
    assert session.asked == 100


def test_while_it_is_paused_datagrams_wait_and_answers_go_on(exchange: Exchange) -> None:
    pod = exchange.backend()
    serve = exchange.serve(pod)
    client = exchange.client(serve)
    peer = exchange.exchange(client, pod)
    exchange.datagrams.pause()
    client.send(b"later")
    exchange.settle()
    assert not readable(pod)
    pod.sendto(b"news", peer)
    assert exchange.got(client) == b"news"
    exchange.datagrams.resume()
    assert exchange.asked(pod) == (b"later", peer)


def test_when_it_drains_those_who_have_a_session_are_served_and_nobody_new(exchange: Exchange) -> None:
    pod = exchange.backend()
    serve = exchange.serve(pod, idle=60.0)
    known, new = exchange.client(serve), exchange.client(serve)
    exchange.exchange(known, pod)
    exchange.datagrams.drain()
    exchange.exchange(known, pod)
    exchange.says(new)
    exchange.settle()
    assert not readable(pod)
    assert exchange.counters.datagrams_dropped == {"stopping": 1}
    exchange.pass_time(5.0)
    assert exchange.reasons() == ["idle"], "nobody waits for a minute for it"


def test_with_the_listener_its_sessions_end_as_there_is_no_way_back(exchange: Exchange) -> None:
    pod = exchange.backend()
    client = exchange.client(exchange.serve(pod))
    exchange.exchange(client, pod)
    exchange.listener.close()
    assert exchange.reasons() == ["listener-closed"]
    exchange.listener.close()


def test_a_session_that_is_given_up_for_a_bug_does_not_take_others_along(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = exchange.backend()
    serve = exchange.serve(pod)
    first, second = exchange.client(serve), exchange.client(serve)
    peer = exchange.exchange(first, pod)
    exchange.exchange(second, pod)

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(exchange.sessions[0].__class__, "_answered", fail)
    pod.sendto(b"news", peer)
    exchange.settle()
    assert [one.client for one in exchange.ended] == [address_of(first)]
    monkeypatch.undo()
    exchange.exchange(second, pod)
