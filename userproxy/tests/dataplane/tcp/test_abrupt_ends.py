"""Whoever has not got everything is never told that this was the end, not even when the process dies.

What the kernel does then is what close() does: a test has it close the sockets behind everybody's back.
"""

from __future__ import annotations

import os
import socket as net
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.lifecycle import Event, State
from userproxy.dataplane.tcp.listener import listen
from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.model.settings import NoEndpoints, Settings
from userproxy.net import sockets as dialling
from userproxy.net.sockets import dialling_socket
from userproxy.tests.dataplane.rig.polling import PATIENCE
from userproxy.tests.dataplane.rig.proxy import Slow, is_reset

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.dataplane.tcp.connection import Connection
    from userproxy.tests.dataplane.rig.proxy import Proxy
    from userproxy.tests.sockets import Sockets

HELD = Settings(no_endpoints=NoEndpoints.HOLD)

# More than a small receive buffer takes, and less than a send buffer: the rest waits in that.
MUCH = bytes(range(256)) * 800


def die(proxy: Proxy, connection: Connection) -> None:
    """The kernel closes what the process had open. Sockets of no use take the numbers, for the test's end."""
    for sock in (connection._client_sock, connection._dial.sock):
        if sock is not None:
            with net.socket(type=net.SOCK_DGRAM) as other:
                os.dup2(other.fileno(), sock.fileno(), inheritable=False)
            if sock.fileno() in proxy.poller._handlers:
                proxy.poller._epoll.register(sock.fileno(), 0)


def everything(sock: socket) -> bytes:
    """What comes up to the end of the stream.

    Raises:
        ConnectionResetError: it was cut.
    """
    sock.settimeout(PATIENCE)
    found = b""
    while part := sock.recv(1 << 20):
        found += part
    return found


def read_slowly(sock: socket) -> None:
    """Leave no room for what comes."""
    sock.setsockopt(net.SOL_SOCKET, net.SO_RCVBUF, 1 << 15)


@pytest.mark.parametrize("who", ["client", "backend"])
def test_of_what_was_under_way_neither_side_sees_the_end(proxy: Proxy, who: str) -> None:
    connection, client, there = proxy.established()
    receiver, sender = (client, there) if who == "client" else (there, client)
    sender.send(b"half of")
    assert proxy.received(receiver) == b"half of"
    die(proxy, connection)
    assert is_reset(proxy, receiver)
    assert is_reset(proxy, sender)


@pytest.mark.parametrize("who", ["client", "backend"])
def test_who_has_finished_gets_no_end_of_an_answer_that_is_under_way(proxy: Proxy, who: str) -> None:
    connection, client, there = proxy.established()
    finished, other = (client, there) if who == "client" else (there, client)
    finished.shutdown(net.SHUT_WR)
    assert proxy.received(other) == b""
    other.send(b"half of")
    assert proxy.received(finished) == b"half of"
    die(proxy, connection)
    assert is_reset(proxy, finished)


@pytest.mark.parametrize("who", ["client", "backend"])
def test_what_was_complete_is_delivered_to_the_end(proxy: Proxy, who: str) -> None:
    connection, client, there = proxy.established()
    finished, other = (client, there) if who == "client" else (there, client)
    read_slowly(other)
    finished.send(MUCH)
    finished.shutdown(net.SHUT_WR)
    assert proxy.reaches(connection, State.CLIENT_FINISHED if who == "client" else State.BACKEND_FINISHED)
    die(proxy, connection)
    assert everything(other) == MUCH
    assert is_reset(proxy, finished)


@pytest.mark.parametrize("who", ["client", "backend"])
def test_a_half_closed_connection_that_is_killed_is_reset_on_both_sides(proxy: Proxy, who: str) -> None:
    connection, client, there = proxy.established()
    finished, other = (client, there) if who == "client" else (there, client)
    finished.shutdown(net.SHUT_WR)
    assert proxy.received(other) == b""
    connection.end(Event.KILLED)
    assert is_reset(proxy, finished)
    proxy.until(lambda: other.getsockopt(net.SOL_SOCKET, net.SO_ERROR))


@pytest.mark.parametrize("first", ["client", "backend"])
def test_in_order_everything_is_delivered_after_both_have_finished(proxy: Proxy, first: str) -> None:
    connection, client, there = proxy.established()
    one, other = (client, there) if first == "client" else (there, client)
    for each in (one, other):
        read_slowly(each)
    for each in (one, other):  # none of them reads before it is over
        each.send(MUCH)
        each.shutdown(net.SHUT_WR)
    assert proxy.reaches(connection, State.CLOSED)
    assert connection.reason is (Reason.CLIENT_FIN if first == "client" else Reason.BACKEND_FIN)
    assert everything(other) == MUCH
    assert everything(one) == MUCH


def test_while_a_backend_is_dialled_both_are_reset(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "socket", Slow)
    backend = proxy.listening()
    proxy.serve(backend)
    connection, client = proxy.accept()
    assert connection.state is State.CONNECTING
    die(proxy, connection)
    assert is_reset(proxy, client)
    assert is_reset(proxy, proxy.taken(backend)), "an empty upload would look complete"


def test_a_client_that_waits_for_endpoints_is_reset(proxy: Proxy) -> None:
    proxy.serve(settings=HELD)
    connection, client = proxy.accept()
    assert connection.state is State.WAITING
    die(proxy, connection)
    assert is_reset(proxy, client)


def test_a_backend_that_was_dialled_in_vain_gets_no_empty_upload(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, quick = proxy.listening(), proxy.listening()
    proxy.serve(late, quick, settings=Settings(hedged_dial=0.2))
    with monkeypatch.context() as patch:
        patch.setattr(dialling, "socket", Slow)
        connection, client = proxy.accept()
    proxy.clock.now += 0.2
    connection._dial.look()
    connection._dial.hedge_answered()
    assert connection.backend is not None
    assert connection.backend.address == Address(*quick.getsockname())
    assert is_reset(proxy, proxy.taken(late))
    there = proxy.taken(quick)
    die(proxy, connection)
    assert is_reset(proxy, client)
    assert is_reset(proxy, there)


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_who_waits_to_be_accepted_is_reset(sockets: Sockets, proxy: Proxy, ip: str) -> None:
    listener = sockets.keep(listen(Address(ip, 0)))
    client = sockets.keep(dialling_socket(Address(ip, 0)))
    client.connect_ex(listener.getsockname())
    listener.close()
    assert is_reset(proxy, client)
