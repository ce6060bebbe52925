"""The table of live connections, as an operator sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.address import Address
from userproxy.model.filter import ConnectionFilter
from userproxy.model.service import ServicePortName

if TYPE_CHECKING:
    from userproxy.tests.dataplane.rig.proxy import Proxy


def rows(proxy: Proxy) -> list[tuple[str, str, int, int]]:
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
    assert (row.id, row.service, row.listener) == ("1", "shop/cart:http", "127.0.0.1:10400")
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
    assert [row.id for chunk in proxy.table.rows(wanted) for row in chunk] == [str(chosen.number)]
    other = ConnectionFilter(service=ServicePortName("shop", "cart", "metrics"))
    assert list(proxy.table.rows(other)) in ([], [[]])
    assert not [row for chunk in proxy.table.rows(ConnectionFilter(client="10.0.0.0/8")) for row in chunk]
