"""What is remembered of connections that are over: how each went, and no more of them than was said."""

from __future__ import annotations

import errno
import os
import socket as net
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.recorder import Recorder
from userproxy.dataplane.tcp.lifecycle import Event, State
from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.model.filter import ConnectionFilter, RecordFilter
from userproxy.model.records import GIVEN_UP, MOST_ATTEMPTS, row_of
from userproxy.model.settings import Settings
from userproxy.tests.dataplane.rig.plane import Plane
from userproxy.tests.dataplane.rig.proxy import reset

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.dataplane.connections import ConnectionTable
    from userproxy.model.records import Record, RecordRow
    from userproxy.tests.dataplane.rig.proxy import Proxy
    from userproxy.tests.sockets import Sockets

ENDED = RecordFilter(live=False)


def records(table: ConnectionTable, wanted: RecordFilter = ENDED) -> list[Record]:
    return [record for chunk in table.records(wanted) for record in chunk]


def only(proxy: Proxy, wanted: RecordFilter = ENDED) -> RecordRow:
    (record,) = records(proxy.table, wanted)
    return row_of(record)


def address(sock: socket) -> str:
    return str(Address(*sock.getsockname()))


def test_a_request_and_its_answer_are_told_from_beginning_to_end(proxy: Proxy) -> None:
    _, client, there = proxy.established()
    peer, source, backend = address(client), str(Address(*there.getpeername())), address(there)
    client.send(b"12345")
    assert proxy.received(there) == b"12345"
    there.send(b"123")
    assert proxy.received(client) == b"123"
    client.shutdown(net.SHUT_WR)
    assert proxy.received(there) == b""
    there.close()
    proxy.until(lambda: not proxy.table.live)
    row = only(proxy)
    assert (row.id, row.service, row.protocol) == (f"{os.getpid()}-1", "shop/cart:http", "TCP")
    assert (row.client, row.listener, row.source, row.backend) == (peer, "127.0.0.1:10400", source, backend)
    assert (row.reason, row.ended_by, row.half_closed_by) == ("client-fin", "client", "client")
    assert (row.bytes_up, row.bytes_down, row.datagrams_up) == (5, 3, None)
    (answered,) = row.attempts
    assert (answered.backend, answered.error) == (backend, "")
    happened = (row.connected_ms, row.first_byte_up_ms, row.first_byte_down_ms, row.half_closed_ms)
    assert all(moment is not None for moment in happened)
    assert row.started_at <= row.ended_at


def test_a_connection_of_which_nothing_came_has_no_first_bytes(proxy: Proxy) -> None:
    connection, _, _ = proxy.established()
    connection.end(Event.KILLED)
    row = only(proxy)
    assert (row.first_byte_up_ms, row.first_byte_down_ms, row.half_closed_by) == (None, None, "")
    assert (row.reason, row.ended_by) == ("killed", "operator")


def test_bytes_that_came_with_the_client_are_its_first(proxy: Proxy) -> None:
    proxy.serve(backend := proxy.listening())
    connection, _ = proxy.accept(b"hello")
    assert proxy.received(proxy.taken(backend)) == b"hello"
    connection.end(Event.KILLED)
    assert only(proxy).first_byte_up_ms is not None


def test_each_dial_is_told_with_what_became_of_it(proxy: Proxy) -> None:
    refusing, silent, good = proxy.bound(), proxy.silent(), proxy.listening()
    proxy.serve(refusing, silent, good)
    connection, _ = proxy.accept()
    proxy.clock.now += 1.0
    proxy.timers.tick()
    proxy.taken(good)
    connection.end(Event.KILLED)
    row = only(proxy)
    assert [(one.backend, one.error) for one in row.attempts] == [
        (address(refusing), "refused"),
        (address(silent), "timeout"),
        (address(good), ""),
    ]
    assert [round(one.ms) for one in row.attempts] == [0, 1000, 0]


def test_when_all_refuse_the_reason_is_the_dial_and_each_is_named(proxy: Proxy) -> None:
    backends = [proxy.bound() for _ in range(3)]
    proxy.serve(*backends)
    proxy.accept()
    row = only(proxy)
    assert (row.reason, row.ended_by, row.backend, row.dial_ms) == ("dial-failed", "backend", "", None)
    assert {one.backend for one in row.attempts} == {address(one) for one in backends}
    assert {one.error for one in row.attempts} == {"refused"}


def test_of_a_crowd_of_backends_that_refuse_the_first_and_the_last_are_told(proxy: Proxy) -> None:
    backends = [proxy.bound() for _ in range(MOST_ATTEMPTS + 5)]
    proxy.serve(*backends)
    proxy.accept()
    row = only(proxy)
    assert len(row.attempts) == MOST_ATTEMPTS
    assert row.attempts_left_out == 5
    told = [one.backend for one in row.attempts]
    assert told == [address(one) for one in (*backends[: MOST_ATTEMPTS - 1], backends[-1])]


def test_a_client_that_leaves_during_the_dial_shows_which_was_under_way(proxy: Proxy) -> None:
    proxy.serve(silent := proxy.silent())
    connection, _ = proxy.accept()
    connection.end(Event.KILLED)
    (record,) = records(proxy.table)
    assert [(str(one.backend), one.error) for one in record.timeline.attempts] == [
        (address(silent), GIVEN_UP)
    ]


@pytest.mark.parametrize("second_wins", [True, False])
def test_of_a_hedged_dial_the_loser_was_given_up(proxy: Proxy, *, second_wins: bool) -> None:
    first, second = proxy.silent(), proxy.listening() if second_wins else proxy.silent()
    proxy.serve(first, second, settings=Settings(hedged_dial=0.25))
    connection, _ = proxy.accept()
    proxy.clock.now += 0.25
    proxy.timers.tick()
    if second_wins:
        assert proxy.reaches(connection, State.ESTABLISHED)
    else:
        connection.dialled(Event.CONNECTED)
    connection.end(Event.KILLED)
    told = [(one.backend, one.error) for one in only(proxy).attempts]
    won, lost = (second, first) if second_wins else (first, second)
    assert told == [(address(lost), "given-up"), (address(won), "")]


@pytest.mark.parametrize("who", ["client", "backend"])
def test_who_reset_it_is_told(proxy: Proxy, who: str) -> None:
    _, client, there = proxy.established()
    reset(client if who == "client" else there)
    proxy.until(lambda: not proxy.table.live)
    row = only(proxy)
    assert (row.reason, row.ended_by) == (f"{who}-reset", who)
    assert row.client.startswith("127.0.0.1:"), "the address of a socket that was reset is known still"


def test_a_client_that_is_over_its_limit_is_remembered_too(sockets: Sockets) -> None:
    plane = Plane(sockets)
    plane.plane.connections.recorder = Recorder(10)
    backend = plane.backend()
    serve = plane.serve(backend, settings=Settings(max_connections_per_client=1))
    plane.pair(serve, backend)
    second = plane.connect(serve)
    assert plane.is_reset(second)
    (record,) = records(plane.plane.connections)
    assert (record.reason, str(record.client)) == (Reason.TOO_MANY, address(second))
    plane.shut()


def test_where_a_client_had_gone_is_known_though_conntrack_has_forgotten_it(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = bytes.fromhex("0200 0050 0a03f198 0000000000000000")
    proxy.context = proxy.context._replace(original=lambda _: told)
    _, client, _ = proxy.established()
    monkeypatch.setattr("userproxy.dataplane.tcp.connection.original_sockaddr", lambda _: None)
    reset(client)
    proxy.until(lambda: not proxy.table.live)
    assert only(proxy).frontend == "10.3.241.152:80"


# --- which are kept


def fill(proxy: Proxy, count: int) -> None:
    for _ in range(count):
        connection, client, there = proxy.established()
        connection.end(Event.KILLED)
        client.close()
        there.close()


def numbers(proxy: Proxy, wanted: RecordFilter = ENDED) -> list[int]:
    return [record.number for record in records(proxy.table, wanted)]


def test_the_last_so_many_are_kept(proxy: Proxy) -> None:
    proxy.table.recorder = Recorder(3)
    fill(proxy, 5)
    assert numbers(proxy) == [3, 4, 5]


def test_with_no_room_nothing_is_kept_and_nothing_is_asked_of_a_socket(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.table.recorder = Recorder(0)
    connection, _, _ = proxy.established()
    monkeypatch.setattr(type(connection), "frontend", property(lambda _: pytest.fail("asked")))
    connection.end(Event.KILLED)
    assert numbers(proxy) == []


def test_a_record_is_small(proxy: Proxy) -> None:
    fill(proxy, 5)
    assert proxy.table.recorder.size / 5 < 250


def test_those_of_a_worker_that_is_gone_give_way_to_this_ones_own(proxy: Proxy) -> None:
    def told() -> list[tuple[int, int]]:
        return [(one.pid, one.number) for one in records(proxy.table)]

    proxy.table.name = 1
    former = proxy.table.recorder = Recorder(4)
    fill(proxy, 4)
    proxy.table.name = 2
    heir = proxy.table.recorder = Recorder(5)
    fill(proxy, 2)
    for part in former.give():
        heir.inherit(part)
    assert told() == [(1, 2), (1, 3), (1, 4), (2, 5), (2, 6)]
    fill(proxy, 4)
    assert told() == [(2, number) for number in range(6, 11)]


def test_whoever_keeps_none_inherits_none(proxy: Proxy) -> None:
    fill(proxy, 2)
    heir = Recorder(0)
    for part in proxy.table.recorder.give():
        heir.inherit(part)
    assert len(heir) == 0


# --- which are found


def test_one_is_found_by_its_id_be_it_live_or_over(proxy: Proxy) -> None:
    fill(proxy, 2)
    connection, _, _ = proxy.established()
    over, live = f"{os.getpid()}-2", proxy.table.id_of(connection)
    assert only(proxy, RecordFilter(id=over)).reason == "killed"
    found = only(proxy, RecordFilter(id=live))
    assert (found.id, found.state, found.reason, found.ended_at) == (live, "established", "", "")
    assert records(proxy.table, RecordFilter(id="1-1")) == []


def test_whose_source_a_pod_saw_is_found_live_and_afterwards(proxy: Proxy) -> None:
    fill(proxy, 2)
    connection, client, there = proxy.established()
    wanted = RecordFilter(connections=ConnectionFilter(source=Address(*there.getpeername())))
    assert only(proxy, wanted).client == address(client)
    peer = address(client)
    connection.end(Event.KILLED)
    assert (only(proxy, wanted).client, only(proxy, wanted).reason) == (peer, "killed")


def test_they_are_chosen_by_reason_by_time_and_by_what_connections_have(proxy: Proxy) -> None:
    fill(proxy, 1)
    _, client, _ = proxy.established()
    reset(client)
    proxy.until(lambda: not proxy.table.live)
    first, second = records(proxy.table)
    assert numbers(proxy, RecordFilter(reasons=(Reason.CLIENT_RESET,))) == [2]
    assert numbers(proxy, RecordFilter(since=second.ended)) == [2]
    assert first.backend is not None
    assert numbers(proxy, RecordFilter(connections=ConnectionFilter(backend=first.backend))) == [1]
    assert numbers(proxy, RecordFilter(connections=ConnectionFilter(client="10.0.0.0/8"))) == []


def test_an_errno_that_has_no_name_of_ours_is_told_by_its_own(proxy: Proxy) -> None:
    proxy.serve(proxy.silent())
    connection, _ = proxy.accept()
    connection._dial._failed(errno.EACCES)
    connection.end(Event.KILLED)
    assert [one.error for one in only(proxy).attempts] == ["EACCES"]
