"""Clients that wait for their Service to have endpoints."""

from __future__ import annotations

from _socket import socket
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.lifecycle import Event, State
from userproxy.model.endings import Reason
from userproxy.model.filter import ConnectionFilter
from userproxy.model.settings import NoEndpoints, Settings
from userproxy.tests.dataplane.rig.proxy import is_reset, reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.tests.dataplane.rig.proxy import Proxy

HELD = Settings(no_endpoints=NoEndpoints.HOLD, hold_connections=2, hold_timeout=10.0)


@pytest.fixture
def held(proxy: Proxy) -> Proxy:
    """Without a backend, and with two places to wait for one."""
    proxy.serve(settings=HELD)
    return proxy


def test_whoever_waits_is_served_when_a_backend_comes_and_nothing_said_is_lost(held: Proxy) -> None:
    connection, client = held.accept(b"early ")
    client.send(b"and late")
    assert held.reaches(connection, State.WAITING)
    held.poller.dispatch()
    backend = held.listening()
    held.serve(backend)
    there = held.taken(backend)
    assert held.reaches(connection, State.ESTABLISHED)
    said = b""
    while len(said) < len(b"early and late"):
        said += held.received(there)
    there.send(b"reply")
    assert (said, held.received(client)) == (b"early and late", b"reply")
    assert connection.bytes_up == len(said)


def test_they_are_dialled_for_in_the_order_in_which_they_came(held: Proxy) -> None:
    first, _ = held.accept(b"1")
    second, _ = held.accept(b"2")
    backend = held.listening()
    held.serve(backend)
    assert [held.received(held.taken(backend)) for _ in (first, second)] == [b"1", b"2"]


def test_after_a_long_wait_there_is_all_the_time_for_dialling(held: Proxy) -> None:
    connection, _ = held.accept()
    held.clock.now += 9.0
    held.serve(held.bound(), backend := held.listening())
    held.taken(backend)
    assert connection.state is State.ESTABLISHED


def test_one_more_than_may_wait_is_reset_at_once(held: Proxy) -> None:
    waiting = [held.accept()[0] for _ in range(2)]
    connection, client = held.accept()
    assert (connection.state, connection.reason) == (State.CLOSED, Reason.HOLD_FULL)
    assert is_reset(held, client)
    assert [each.state for each in waiting] == [State.WAITING] * 2
    assert held.table.counters.clients_held == 2


def test_whoever_has_waited_long_enough_is_reset(held: Proxy) -> None:
    connection, client = held.accept()
    held.clock.now += 9.9
    held.timers.tick()
    assert connection.state is State.WAITING
    held.clock.now += 0.1
    held.timers.tick()
    assert connection.reason is Reason.HOLD_EXPIRED
    assert is_reset(held, client)
    assert held.table.counters.connections_ended == {"hold-expired": 1}


@pytest.mark.parametrize(
    ("said", "leaves", "reason"),
    [
        (b"", socket.close, Reason.CLIENT_GONE),
        (b"GET /", socket.close, Reason.CLIENT_GONE),
        (b"GET /", reset, Reason.CLIENT_RESET),
    ],
)
def test_a_client_that_leaves_gives_up_its_place(
    held: Proxy, said: bytes, leaves: Callable[[socket], None], reason: Reason
) -> None:
    connection, client = held.accept(said)
    leaves(client)
    assert held.reaches(connection, State.CLOSED)
    assert connection.reason is reason
    assert [held.accept()[0].state for _ in range(2)] == [State.WAITING] * 2


def test_whoever_has_finished_already_when_it_is_accepted_gets_no_place_for_long(held: Proxy) -> None:
    connection, _ = held.accept(b"GET /", finished=True)
    assert held.reaches(connection, State.CLOSED)


@pytest.mark.parametrize("event", [Event.KILLED, Event.SHUTDOWN, Event.AGED])
def test_it_can_be_ended_like_any_other(held: Proxy, event: Event) -> None:
    connection, client = held.accept()
    connection.end(event)
    assert is_reset(held, client)
    assert held.accept()[0].state is State.WAITING


def test_it_is_listed_with_a_state_of_its_own(held: Proxy) -> None:
    held.accept()
    ((row,),) = held.table.rows(ConnectionFilter())
    assert (row.state, row.backend, row.source) == ("waiting", "", "")


def test_whoever_is_not_to_be_held_any_more_is_reset(held: Proxy) -> None:
    connection, client = held.accept()
    held.serve(settings=Settings())
    assert connection.reason is Reason.NO_BACKEND
    assert is_reset(held, client)


def test_when_the_service_is_gone_nobody_waits_for_it(held: Proxy) -> None:
    connection, _ = held.accept()
    held.service.retire()
    held.context.waiting.settle(held.service)
    assert connection.reason is Reason.NO_BACKEND


def test_all_endpoints_may_go_while_one_is_dialled(held: Proxy) -> None:
    held.serve(held.silent())
    connection, _ = held.accept(b"hello")
    held.serve()
    assert held.reaches(connection, State.CONNECTING)
    held.clock.now += 1.0
    held.timers.tick()
    assert held.reaches(connection, State.WAITING)
    held.serve(backend := held.listening())
    assert held.received(held.taken(backend)) == b"hello"


def test_backends_that_are_there_and_down_are_dialled_and_nobody_waits(held: Proxy) -> None:
    held.serve(held.bound())
    connection, _ = held.accept()
    assert connection.reason is Reason.DIAL_FAILED


def test_it_is_said_when_the_first_comes_and_from_time_to_time_while_any_wait(held: Proxy) -> None:
    name = held.service.pool.name
    first, _ = held.accept()
    held.accept()
    assert held.needed == [name]
    first.end(Event.KILLED)
    held.clock.now += 9.0
    held.timers.tick()
    assert held.needed == [name]
    held.serve(settings=Settings(no_endpoints=NoEndpoints.HOLD, hold_timeout=100.0))
    held.clock.now += 6.0
    held.timers.tick()
    held.timers.tick()
    assert held.needed == [name] * 2


def test_it_is_said_again_once_nobody_had_waited(held: Proxy) -> None:
    held.accept()[0].end(Event.KILLED)
    held.accept()
    assert len(held.needed) == 2


@pytest.mark.parametrize(("workers", "places"), [(1, 16), (2, 8), (3, 6), (100, 1)])
def test_each_worker_has_its_part_of_the_places_and_one_at_least(
    proxy: Proxy, workers: int, places: int
) -> None:
    proxy.service._place = (0, workers)
    assert proxy.service.places == places
