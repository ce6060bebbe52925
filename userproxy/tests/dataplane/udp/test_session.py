"""A client's session: who gets its datagrams, whose answers it gets, and when it is over."""

from __future__ import annotations

import os
import socket as net
from _socket import socket
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.lifecycle import Event
from userproxy.dataplane.udp.listener import LARGEST
from userproxy.dataplane.udp.unanswered import ROOM_BYTES
from userproxy.model.address import Address
from userproxy.tests.dataplane.rig.datagrams import address_of, readable
from userproxy.tests.dataplane.rig.plane import files_left

if TYPE_CHECKING:
    from userproxy.tests.dataplane.rig.datagrams import Exchange


def test_a_client_has_one_pod_and_that_sees_one_client(exchange: Exchange) -> None:
    one, two = exchange.backend(), exchange.backend()
    serve = exchange.serve(one, two)
    first, second = exchange.client(serve), exchange.client(serve)
    seen = exchange.exchange(first, one)
    assert exchange.exchange(second, two) != seen
    assert [exchange.exchange(first, one) for _ in range(3)] == [seen] * 3
    (session, _) = exchange.sessions
    assert (session.client, session.source) == (address_of(first), Address(*seen))
    assert (session.asked, session.answered, session.bytes_up, session.bytes_down) == (4, 4, 20, 36)
    assert session.state.value == "replied"


@pytest.mark.parametrize("size", [0, 1, 1472, 4097, 9000, 65507])
def test_datagrams_are_whole_both_ways(exchange: Exchange, size: int) -> None:
    pod = exchange.backend()
    client = exchange.client(exchange.serve(pod))
    client.setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, 1 << 20)
    question = os.urandom(size)
    client.send(question)
    datagram, peer = exchange.asked(pod)
    assert datagram == question
    pod.sendto(question, peer)
    assert exchange.got(client) == question
    assert size <= LARGEST


def test_nobody_but_the_pod_can_answer(exchange: Exchange) -> None:
    pod, stranger = exchange.backend(), exchange.backend()
    client = exchange.client(exchange.serve(pod))
    exchange.says(client)
    _, peer = exchange.asked(pod)
    stranger.connect(peer)
    stranger.send(b"believe me")
    with pytest.raises(ConnectionRefusedError):
        stranger.recv(100)
    pod.sendto(b"the answer", peer)
    assert exchange.got(client) == b"the answer"
    assert not readable(client)


def test_what_a_pod_refuses_goes_to_the_next_one_and_nobody_notices(exchange: Exchange) -> None:
    pod = exchange.backend()
    serve = exchange.serve(exchange.gone(), pod)
    client = exchange.client(serve)
    exchange.exchange(client, pod)
    assert exchange.counters.failed_dials == {"refused": 1}
    assert exchange.counters.retried_dials == {"refused": 1}
    exchange.exchange(client, pod)
    assert exchange.counters.failed_dials == {"refused": 1}, "it stays with the other one"


def test_a_pod_that_goes_away_between_two_datagrams_costs_none(exchange: Exchange) -> None:
    one, two = exchange.backend(), exchange.backend()
    client = exchange.client(exchange.serve(one, two))
    exchange.exchange(client, one)
    one.close()
    exchange.exchange(client, two)


def test_several_questions_at_once_are_all_asked_again(exchange: Exchange) -> None:
    pod = exchange.backend()
    client = exchange.client(exchange.serve(exchange.gone(), pod))
    for question in (b"A?", b"AAAA?"):
        client.send(question)
    assert [exchange.asked(pod)[0] for _ in range(2)] == [b"A?", b"AAAA?"]


def test_what_was_sent_long_ago_is_not_told_to_another_pod(exchange: Exchange) -> None:
    one, two = exchange.backend(), exchange.backend()
    client = exchange.client(exchange.serve(one, two))
    for text in (b"1", b"2", b"3"):
        exchange.says(client, text)
        assert exchange.asked(one)[0] == text, "a pod that never answers"
        exchange.clock.now += 1.0
    one.close()
    exchange.says(client, b"4")
    assert exchange.asked(two)[0] == b"4"
    exchange.settle()
    assert not readable(two)


def test_where_all_pods_refuse_the_datagram_is_lost_and_the_next_begins_anew(
    exchange: Exchange,
) -> None:
    serve = exchange.serve(exchange.gone(), exchange.gone())
    client = exchange.client(serve)
    exchange.says(client)
    exchange.settle()
    assert exchange.counters.datagrams_dropped == {"no-backend": 1}
    assert exchange.counters.failed_dials == {"refused": 2}
    pod = exchange.backend()
    exchange.change(serve, pod)
    exchange.exchange(client, pod)
    assert len(exchange.sessions) == 1


def test_a_client_leaves_a_pod_that_is_no_endpoint_any_more_at_its_next_datagram(exchange: Exchange) -> None:
    one, two = exchange.backend(), exchange.backend()
    serve = exchange.serve(one, two)
    client = exchange.client(serve)
    exchange.says(client)
    _, peer = exchange.asked(one)
    exchange.change(serve, two)
    one.sendto(b"a late answer", peer)
    assert exchange.got(client) == b"a late answer"
    exchange.exchange(client, two)
    assert not readable(one)


def test_a_client_stays_with_a_pod_that_is_leaving_until_it_is_gone(exchange: Exchange) -> None:
    one, two = exchange.backend(), exchange.backend()
    serve = exchange.serve(one, two)
    client = exchange.client(serve)
    exchange.exchange(client, one)
    exchange.change(serve, two, leaving=[one])
    exchange.exchange(client, one)
    exchange.change(serve, two)
    exchange.exchange(client, two)


def test_a_pod_that_refuses_is_ejected_and_comes_back_when_it_answers_a_probe(exchange: Exchange) -> None:
    one, two = exchange.backend(), exchange.backend()
    address = address_of(one)
    serve = exchange.serve(address, two)
    one.close()
    for _ in range(6):
        exchange.exchange(exchange.client(serve), two)
    assert exchange.is_ejected(serve, address)
    back = socket(net.AF_INET, net.SOCK_DGRAM | net.SOCK_NONBLOCK)
    back.bind((address.ip, address.port))
    exchange.clock.now += 6.0
    exchange.exchange(exchange.client(serve), back)
    assert not exchange.is_ejected(serve, address)
    back.close()


def test_a_pod_that_never_answers_anybody_comes_back_as_it_refuses_no_more(exchange: Exchange) -> None:
    one, two = exchange.backend(), exchange.backend()
    address = address_of(one)
    serve = exchange.serve(address, two)
    one.close()
    for _ in range(6):
        exchange.says(exchange.client(serve), b"for the log")
        exchange.asked(two)
    assert exchange.is_ejected(serve, address)
    back = socket(net.AF_INET, net.SOCK_DGRAM | net.SOCK_NONBLOCK)
    back.bind((address.ip, address.port))
    exchange.clock.now += 6.0
    exchange.says(exchange.client(serve), b"for the log")
    exchange.asked(back)
    exchange.pass_time(1.0)
    assert not exchange.is_ejected(serve, address)
    back.close()


def test_a_session_that_carries_nothing_is_over_and_one_that_carries_something_is_not(
    exchange: Exchange,
) -> None:
    pod = exchange.backend()
    serve = exchange.serve(pod, idle=5.0)
    quiet, busy, told = (exchange.client(serve) for _ in range(3))
    exchange.exchange(quiet, pod)
    exchange.exchange(busy, pod)
    peer = exchange.exchange(told, pod)
    exchange.pass_time(3.0)
    exchange.exchange(busy, pod)
    pod.sendto(b"news", peer)
    assert exchange.got(told) == b"news"
    exchange.pass_time(3.0)
    assert [one.client for one in exchange.ended] == [address_of(quiet)]
    assert exchange.reasons() == ["idle"]
    exchange.exchange(quiet, pod)
    assert len(exchange.sessions) == 3, "its next datagram begins a new one"


def test_the_idle_time_may_be_changed(exchange: Exchange) -> None:
    pod = exchange.backend()
    serve = exchange.serve(pod, idle=60.0)
    exchange.exchange(exchange.client(serve), pod)
    exchange.change(serve, pod, idle=1.0)
    exchange.pass_time(2.0)
    assert exchange.reasons() == ["idle"]


def test_a_short_session_is_over_when_each_question_has_its_answer(exchange: Exchange) -> None:
    pod = exchange.backend()
    client = exchange.client(exchange.serve(pod, short=True))
    for question in (b"A?", b"AAAA?"):
        client.send(question)
    (_, peer), (_, other) = exchange.asked(pod), exchange.asked(pod)
    assert peer == other
    for answer in (b"10.0.0.1", b"fd00::1"):
        assert not exchange.ended
        pod.sendto(answer, peer)
        assert exchange.got(client) == answer
    assert exchange.reasons() == ["answered"]


def test_a_session_that_is_killed_is_over_and_the_client_begins_anew(exchange: Exchange) -> None:
    pod = exchange.backend()
    client = exchange.client(exchange.serve(pod))
    seen = exchange.exchange(client, pod)
    (session,) = exchange.sessions
    session.end(Event.KILLED)
    assert exchange.reasons() == ["killed"]
    assert exchange.counters.connections_ended == {"killed": 1}
    assert exchange.exchange(client, pod) != seen
    session.end(Event.KILLED)
    assert len(exchange.sessions) == 1, "it ends once"


def test_what_waits_for_an_answer_takes_no_more_room_than_there_is(exchange: Exchange) -> None:
    one, two = exchange.backend(), exchange.backend()
    room = exchange.datagrams._shared.room
    room.most = 10
    client = exchange.client(exchange.serve(one, two))
    exchange.exchange(client, one)
    one.close()
    exchange.says(client, bytes(11))
    exchange.settle()
    assert not readable(two), "too large to be kept, and so lost"
    assert room.taken == 0
    exchange.exchange(client, two, b"small")
    assert ROOM_BYTES >= 16 << 20


def test_out_of_files_the_least_recently_used_session_gives_way(exchange: Exchange) -> None:
    pod = exchange.backend()
    serve = exchange.serve(pod)
    first, second = exchange.client(serve), exchange.client(serve)
    exchange.exchange(first, pod)
    with files_left(0):
        exchange.says(second)
        exchange.settle()
        assert exchange.counters.datagrams_dropped == {"out-of-files": 1}
        assert [one.client for one in exchange.ended] == [address_of(first)]
        exchange.exchange(second, pod, b"again")
