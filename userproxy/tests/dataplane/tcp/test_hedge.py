"""A second dial beside a slow first one: the winner is taken, and nothing of the loser is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.dataplane.tcp.lifecycle import Event, State
from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.model.settings import Settings

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.dataplane.tcp.connection import Connection
    from userproxy.tests.dataplane.rig.proxy import Proxy

PATIENCE = 0.25


def hedging(proxy: Proxy, *backends: socket) -> None:
    """Serve with these backends, and with a second dial after a while."""
    proxy.serve(*backends)
    settings = Settings(hedged_dial=PATIENCE)
    proxy.service.update(msgspec.structs.replace(proxy.service.pool, settings=settings))


def wait(proxy: Proxy, seconds: float) -> None:
    """Let time go by."""
    proxy.clock.now += seconds
    proxy.timers.tick()


def goes_to(connection: Connection, backend: socket) -> bool:
    return connection.backend is not None and connection.backend.address == Address(*backend.getsockname())


def counts(proxy: Proxy) -> list[int]:
    return [live.connections for live in proxy.service.backends]


def test_a_second_backend_is_dialled_and_taken_when_the_first_takes_long(proxy: Proxy) -> None:
    slow, good = proxy.silent(), proxy.listening()
    hedging(proxy, slow, good)
    connection, client = proxy.accept()
    wait(proxy, PATIENCE - 0.01)
    assert counts(proxy) == [1, 0]
    wait(proxy, 0.01)
    assert counts(proxy) == [1, 1]
    there = proxy.taken(good)
    assert proxy.reaches(connection, State.ESTABLISHED)
    assert goes_to(connection, good)
    assert counts(proxy) == [0, 1]
    client.send(b"x")
    assert proxy.received(there) == b"x"
    assert proxy.service.counters.retried_dials == {"hedged": 1}
    assert not proxy.service.counters.failed_dials
    connection.end(Event.KILLED)
    assert proxy.nothing_is_left()


def test_without_the_setting_the_first_has_all_of_its_time(proxy: Proxy) -> None:
    slow, good = proxy.silent(), proxy.listening()
    proxy.serve(slow, good)
    connection, _ = proxy.accept()
    wait(proxy, 0.9)
    assert counts(proxy) == [1, 0]
    connection.end(Event.KILLED)


def test_the_first_wins_if_it_answers_after_all(proxy: Proxy) -> None:
    slow, other = proxy.silent(), proxy.silent()
    hedging(proxy, slow, other)
    connection, _ = proxy.accept()
    wait(proxy, PATIENCE)
    assert counts(proxy) == [1, 1]
    connection._run(Event.CONNECTED)
    assert goes_to(connection, slow)
    assert counts(proxy) == [1, 0]
    connection.end(Event.KILLED)
    assert proxy.nothing_is_left()


def test_when_the_first_fails_the_second_goes_on_with_the_time_it_has_left(proxy: Proxy) -> None:
    slow, other = proxy.silent(), proxy.silent()
    hedging(proxy, slow, other)
    connection, _ = proxy.accept()
    wait(proxy, PATIENCE)
    wait(proxy, 1.0 - PATIENCE)
    assert counts(proxy) == [0, 1]
    assert goes_to(connection, other)
    assert proxy.service.counters.failed_dials == {"timeout": 1}
    wait(proxy, PATIENCE)
    assert connection.reason is Reason.DIAL_FAILED
    assert proxy.service.counters.failed_dials == {"timeout": 2}
    assert proxy.nothing_is_left()


def test_when_the_second_fails_the_first_goes_on_alone(proxy: Proxy) -> None:
    slow, refusing = proxy.silent(), proxy.bound()
    hedging(proxy, slow, refusing)
    connection, _ = proxy.accept()
    wait(proxy, PATIENCE)
    proxy.until(lambda: proxy.service.counters.failed_dials)
    assert proxy.service.counters.failed_dials == {"refused": 1}
    assert counts(proxy) == [1, 0]
    assert goes_to(connection, slow)
    wait(proxy, 1.0)
    assert connection.reason is Reason.DIAL_FAILED
    assert proxy.nothing_is_left()


def test_there_is_one_second_dial_at_a_time_and_none_if_there_is_no_other_backend(proxy: Proxy) -> None:
    hedging(proxy, proxy.silent())
    connection, _ = proxy.accept()
    for _ in range(3):
        wait(proxy, PATIENCE)
    assert counts(proxy) == [1]
    connection.end(Event.KILLED)


@pytest.mark.parametrize("event", [Event.KILLED, Event.SHUTDOWN, Event.CLIENT_RESET])
def test_whatever_ends_the_connection_ends_both_dials(proxy: Proxy, event: Event) -> None:
    hedging(proxy, proxy.silent(), proxy.silent())
    connection, _ = proxy.accept()
    wait(proxy, PATIENCE)
    connection.end(event)
    assert proxy.nothing_is_left()
