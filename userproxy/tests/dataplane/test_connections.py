"""The table of live connections, as an operator sees it."""

from __future__ import annotations

import errno
import os
import socket as net
from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.dataplane.tcp.lifecycle import Event, State
from userproxy.model.address import Address
from userproxy.model.filter import ConnectionFilter
from userproxy.model.service import ServicePortName
from userproxy.model.settings import Settings
from userproxy.net import sockets

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.dataplane.tcp.connection import Connection
    from userproxy.tests.dataplane.rig.proxy import Proxy


def rows(proxy: Proxy) -> list[tuple[str, str, int | None, int | None]]:
    return [
        (row.state, row.backend, row.bytes_up, row.bytes_down)
        for chunk in proxy.table.rows(ConnectionFilter())
        for row in chunk
    ]


def test_a_row_tells_where_bytes_go_and_how_many_there_were(proxy: Proxy) -> None:
    connection, client, there = proxy.established()
    client.send(b"12345")
    assert proxy.received(there) == b"12345"
    there.send(b"123")
    assert proxy.received(client) == b"123"
    assert connection.backend is not None
    assert rows(proxy) == [("established", str(connection.backend.address), 5, 3)]
    (chunk,) = proxy.table.rows(ConnectionFilter())
    (row,) = chunk
    assert (row.id, row.service, row.listener) == (f"{os.getpid()}-1", "shop/cart:http", "127.0.0.1:10400")
    assert row.client == str(Address(*client.getsockname()))
    assert row.source == str(Address(*there.getpeername()))
    assert row.frontend == "", "it was not redirected"


def test_a_row_of_a_dial_has_its_backend_and_no_bytes(proxy: Proxy) -> None:
    silent = proxy.silent()
    proxy.serve(silent)
    proxy.accept()
    assert rows(proxy) == [("connecting", str(Address(*silent.getsockname())), 0, 0)]


def test_rows_are_those_that_match(proxy: Proxy) -> None:
    _, _, _ = proxy.established()
    chosen, _, there = proxy.established()
    wanted = ConnectionFilter(backend=Address(*there.getsockname()))
    assert [row.id for chunk in proxy.table.rows(wanted) for row in chunk] == [proxy.table.id_of(chosen)]
    other = ConnectionFilter(service=ServicePortName("shop", "cart", "metrics"))
    assert list(proxy.table.rows(other)) in ([], [[]])
    assert not [row for chunk in proxy.table.rows(ConnectionFilter(client="10.0.0.0/8")) for row in chunk]


# --- what a connection that lasts gets with a sweep: keepalive


def is_equipped(connection: Connection) -> bool:
    assert connection.state is State.ESTABLISHED
    assert connection.backend_leg is not None
    return bool(connection.backend_leg.sock.getsockopt(net.SOL_SOCKET, net.SO_KEEPALIVE))


def test_a_connection_that_lasts_until_the_sweep_is_equipped_and_is_swept_once(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, _, _ = proxy.established()
    over, _, _ = proxy.established()
    over.end(Event.KILLED)
    assert not is_equipped(connection)
    proxy.table.sweep()
    assert is_equipped(connection)
    monkeypatch.setattr(type(connection), "equip", lambda _: pytest.fail("swept again"))
    proxy.table.sweep()


@pytest.mark.parametrize("sweeps", [1, 3])
def test_one_that_was_retried_at_that_moment_is_equipped_by_the_next_sweep(proxy: Proxy, sweeps: int) -> None:
    silent, good = proxy.silent(), proxy.listening()
    proxy.serve(silent, good)
    connection, _ = proxy.accept()
    for _ in range(sweeps):
        proxy.table.sweep()
    proxy.clock.now += 1.0
    proxy.timers.tick()
    assert proxy.reaches(connection, State.ESTABLISHED)
    proxy.table.sweep()
    assert is_equipped(connection)


def test_so_is_one_that_was_hedged(proxy: Proxy) -> None:
    proxy.serve(proxy.silent(), proxy.listening())
    settings = Settings(hedged_dial=0.25)
    proxy.service.update(msgspec.structs.replace(proxy.service.pool, settings=settings))
    connection, _ = proxy.accept()
    proxy.clock.now += 0.25
    proxy.timers.tick()
    proxy.table.sweep()
    assert proxy.reaches(connection, State.ESTABLISHED)
    proxy.table.sweep()
    assert is_equipped(connection)


def test_so_is_one_that_waited_for_a_socket(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: int) -> socket:
        raise OSError(errno.EMFILE, "Too many open files")

    proxy.serve(proxy.listening())
    with monkeypatch.context() as patch:
        patch.setattr(sockets, "socket", no_socket)
        connection, _ = proxy.accept()
    proxy.table.sweep()
    connection.open()
    assert proxy.reaches(connection, State.ESTABLISHED)
    proxy.table.sweep()
    assert is_equipped(connection)


def test_one_that_never_reached_a_backend_is_swept_no_more(proxy: Proxy) -> None:
    proxy.serve(proxy.silent())
    connection, _ = proxy.accept()
    proxy.table.sweep()
    connection.end(Event.KILLED)
    proxy.table.sweep()
    assert proxy.table._dialling == []
