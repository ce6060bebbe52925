"""How a connection ends is how its peers ended it, and all that it had is given back."""

from __future__ import annotations

import errno
import gc
import select
import socket as net
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.connection import Connection
from userproxy.dataplane.tcp.lifecycle import Event, State
from userproxy.dataplane.tcp.pipes import Pipe
from userproxy.model.endings import Reason
from userproxy.tests.dataplane.rig.polling import PATIENCE
from userproxy.tests.dataplane.rig.proxy import is_reset, reset

if TYPE_CHECKING:
    from userproxy.tests.dataplane.rig.proxy import Proxy


@pytest.mark.parametrize("who", ["client", "backend"])
def test_a_reset_is_handed_on_as_a_reset(proxy: Proxy, who: str) -> None:
    connection, client, there = proxy.established()
    one, other = (client, there) if who == "client" else (there, client)
    reset(one)
    assert is_reset(proxy, other)
    assert connection.reason is (Reason.CLIENT_RESET if who == "client" else Reason.BACKEND_RESET)
    assert proxy.nothing_is_left()


@pytest.mark.parametrize("who", ["client", "backend"])
def test_an_end_is_handed_on_as_an_end_and_the_other_way_stays_open(proxy: Proxy, who: str) -> None:
    connection, client, there = proxy.established()
    one, other = (client, there) if who == "client" else (there, client)
    one.shutdown(net.SHUT_WR)
    assert proxy.received(other) == b""
    assert connection.state is (State.CLIENT_FINISHED if who == "client" else State.BACKEND_FINISHED)
    other.send(b"still here")
    assert proxy.received(one) == b"still here"
    other.shutdown(net.SHUT_WR)
    assert proxy.received(one) == b""
    assert connection.reason is (Reason.CLIENT_FIN if who == "client" else Reason.BACKEND_FIN)
    assert proxy.nothing_is_left()


@pytest.mark.parametrize("event", [Event.KILLED, Event.SHUTDOWN])
def test_ended_from_outside_both_sides_see_a_reset(proxy: Proxy, event: Event) -> None:
    connection, client, there = proxy.established()
    connection.end(event)
    assert is_reset(proxy, client)
    assert is_reset(proxy, there)
    assert connection.reason == event.value
    assert proxy.nothing_is_left()
    connection.end(Event.KILLED)
    assert sum(proxy.table.counters.connections_ended.values()) == 1


def test_an_end_that_meets_a_reset_is_a_reset(proxy: Proxy) -> None:
    connection, client, there = proxy.established()
    assert connection.backend_leg is not None
    reset(there)
    proxy_side = connection.backend_leg.sock
    assert select.select([proxy_side], [], [], PATIENCE)[0]
    assert proxy_side.getsockopt(net.SOL_SOCKET, net.SO_ERROR)  # the poller has not told it yet
    assert connection.client_leg is not None
    connection.finished(connection.client_leg)
    assert connection.reason is Reason.BACKEND_RESET
    assert is_reset(proxy, client)
    assert proxy.nothing_is_left()


def test_half_closed_it_lingers_for_a_minute_without_a_byte(proxy: Proxy) -> None:
    connection, client, there = proxy.established()
    client.shutdown(net.SHUT_WR)
    assert proxy.received(there) == b""
    proxy.clock.now += 59.0
    there.send(b"slowly")
    assert proxy.received(client) == b"slowly"
    proxy.clock.now += 59.0
    proxy.timers.tick()
    assert connection.state is State.CLIENT_FINISHED
    proxy.clock.now += 1.0
    proxy.timers.tick()
    assert connection.reason is Reason.LINGER
    assert is_reset(proxy, client)
    proxy.until(lambda: there.getsockopt(net.SOL_SOCKET, net.SO_ERROR))
    assert proxy.nothing_is_left()


def test_the_minute_begins_when_one_side_finishes_however_long_both_were_silent(proxy: Proxy) -> None:
    connection, client, there = proxy.established()
    proxy.clock.now += 600.0
    client.shutdown(net.SHUT_WR)
    assert proxy.received(there) == b""
    proxy.timers.tick()
    assert connection.state is State.CLIENT_FINISHED
    there.send(b"the answer")
    assert proxy.received(client) == b"the answer"


def test_a_table_that_fails_costs_no_socket(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, client, there = proxy.established()

    def fail(_: Connection) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(connection, "_context", proxy.context._replace(ended=fail))
    with pytest.raises(RuntimeError, match="a bug"):
        connection.end(Event.KILLED)
    assert is_reset(proxy, client)
    assert is_reset(proxy, there)
    proxy.table.remove(connection)


def test_bytes_of_a_connection_that_goes_wrong_reach_no_other(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, client, _ = proxy.established()
    right, other_client, there = proxy.established()
    with monkeypatch.context() as patch:
        patch.setattr(Pipe, "drain", lambda *_: 1 / 0)
        patch.setattr(Pipe, "carry", lambda pipe, source, sink, _: pipe.fill(source) + pipe.drain(sink))
        client.send(b"secret")
        assert proxy.reaches(wrong, State.CLOSED)
    other_client.send(b"hello")
    assert proxy.received(there) == b"hello"
    assert right.bytes_up == 5
    assert proxy.pipes.lent == 0


def test_a_connection_that_is_over_is_freed_without_the_collector(proxy: Proxy) -> None:
    gc.collect()
    gc.disable()
    try:
        client, there = proxy.established()[1:]
        client.close()
        assert proxy.received(there) == b""
        there.close()
        proxy.until(proxy.nothing_is_left)
        assert not [one for one in gc.get_objects() if type(one) is Connection]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("error", "of_client", "of_backend"),
    [
        (errno.ECONNRESET, Reason.CLIENT_RESET, Reason.BACKEND_RESET),
        (errno.EPIPE, Reason.CLIENT_RESET, Reason.BACKEND_RESET),
        (errno.ETIMEDOUT, Reason.CLIENT_LOST, Reason.BACKEND_LOST),
        (errno.EHOSTUNREACH, Reason.CLIENT_LOST, Reason.BACKEND_LOST),
    ],
)
def test_a_peer_that_says_no_and_one_that_says_nothing_any_more_are_told_apart(
    proxy: Proxy, error: int, of_client: Reason, of_backend: Reason
) -> None:
    first, _, _ = proxy.established()
    second, _, _ = proxy.established()
    assert first.client_leg is not None
    assert second.backend_leg is not None
    first.failed(first.client_leg, error)
    second.failed(second.backend_leg, error)
    assert (first.reason, second.reason) == (of_client, of_backend)
