"""UDP Service ports beside those of TCP in one data plane."""

from __future__ import annotations

import asyncio
import socket as net
from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.dataplane.tcp.listener import listen as listen_to_streams
from userproxy.dataplane.udp.listener import listen
from userproxy.model.address import Address
from userproxy.model.filter import ConnectionFilter
from userproxy.model.service import Protocol
from userproxy.model.settings import Settings
from userproxy.model.state import Backend, Serve
from userproxy.tests.dataplane.rig.plane import CART, NOT_CHECKED, Plane, address_of, readable

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator

    from userproxy.tests.sockets import Sockets

ANYWHERE = Address("127.0.0.1", 0)


@pytest.fixture
def plane(sockets: Sockets) -> Iterator[Plane]:
    made = Plane(sockets, max_connections=2)
    yield made
    made.shut()


def udp_socket(sockets: Sockets) -> net.socket:
    sock = net.socket(net.AF_INET, net.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)  # noqa: FBT003 - takes no keyword
    sockets.keep(sock)
    return sock


def serve_udp(plane: Plane, sock: socket, *backends: net.socket) -> Serve:
    serve = Serve(
        service=CART,
        listener=Address(*sock.getsockname()),
        backends=tuple(Backend(address_of(backend)) for backend in backends),
        protocol=Protocol.UDP,
    )
    plane.plane.serve([serve], {serve.name: sock})
    return serve


def client(sockets: Sockets, serve: Serve) -> net.socket:
    sock = udp_socket(sockets)
    sock.connect((serve.listener.ip, serve.listener.port))
    return sock


def exchange(plane: Plane, sock: net.socket, pod: net.socket) -> None:
    sock.send(b"hello")
    plane.until(lambda: readable(pod))
    _, peer = pod.recvfrom(100)
    pod.sendto(b"hello yourself", peer)
    plane.until(lambda: readable(sock))
    assert sock.recv(100) == b"hello yourself"


def test_sessions_are_listed_counted_and_killed_as_connections_are(plane: Plane, sockets: Sockets) -> None:
    pod = udp_socket(sockets)
    serve = serve_udp(plane, listen(ANYWHERE), pod)
    sock = client(sockets, serve)
    exchange(plane, sock, pod)
    (rows,) = plane.plane.connections.rows(ConnectionFilter(service=CART))
    (row,) = rows
    assert (row.protocol, row.state, row.path) == ("UDP", "replied", "redirect-to-host")
    assert (row.client, row.backend) == (str(address_of(sock)), str(address_of(pod)))
    assert (row.listener, row.bytes_up, row.bytes_down) == (str(serve.listener), 5, 14)
    assert plane.told(CART) == [(str(address_of(pod)), "up", 1)]
    assert sum(plane.plane.connections.kill(None, ConnectionFilter(service=CART))) == 1
    assert plane.plane.totals().connections == 0
    assert plane.plane.counters.connections_ended == {"killed": 1}


def test_a_session_counts_half_of_what_a_connection_does_towards_the_limit(
    plane: Plane, sockets: Sockets
) -> None:
    pod, web = udp_socket(sockets), plane.backend()
    streams, datagrams = plane.serve(web), serve_udp(plane, listen(ANYWHERE), pod)
    pair = plane.pair(streams, web)
    exchange(plane, client(sockets, datagrams), pod)
    assert plane.plane.totals().paused == ""
    second = plane.pair(streams, web)
    assert plane.plane.totals().paused, "two connections and a session hold five files, and four may be held"
    plane.finish(*pair)
    assert plane.plane.totals().paused == ""
    plane.finish(*second)


def test_when_its_service_is_gone_so_are_its_sessions(plane: Plane, sockets: Sockets) -> None:
    pod = udp_socket(sockets)
    serve = serve_udp(plane, listen(ANYWHERE), pod)
    exchange(plane, client(sockets, serve), pod)
    plane.plane.close([serve.name])
    assert plane.plane.totals().connections == 0
    assert plane.report(CART) == []


def test_a_port_that_speaks_another_protocol_now_has_another_listener(plane: Plane, sockets: Sockets) -> None:
    pod, web = udp_socket(sockets), plane.backend()
    serve = serve_udp(plane, listen(ANYWHERE), pod)
    sock = client(sockets, serve)
    exchange(plane, sock, pod)
    streams = listen_to_streams(ANYWHERE)
    changed = msgspec.structs.replace(
        serve,
        listener=Address(*streams.getsockname()),
        protocol=Protocol.TCP,
        backends=(Backend(address_of(web)),),
        settings=Settings(check=NOT_CHECKED),
    )
    plane.plane.serve([changed], {serve.name: streams})
    assert plane.plane.counters.connections_ended == {"listener-closed": 1}
    plane.finish(*plane.pair(changed, web))
    sock.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        sock.recv(100)


async def test_on_the_way_out_known_clients_are_served_until_their_time_is_over(
    plane: Plane, sockets: Sockets
) -> None:
    pod = udp_socket(sockets)
    serve = serve_udp(plane, listen(ANYWHERE), pod)
    sock = client(sockets, serve)
    exchange(plane, sock, pod)
    leaving = asyncio.ensure_future(plane.plane.drain(60.0))
    await asyncio.sleep(0)
    exchange(plane, sock, pod)
    plane.plane.end_drain()
    assert await leaving == 1
    assert plane.plane.counters.connections_ended == {"shutdown": 1}


async def test_one_that_retires_leaves_clients_to_another_one(plane: Plane, sockets: Sockets) -> None:
    pod = udp_socket(sockets)
    serve = serve_udp(plane, listen(ANYWHERE), pod)
    sock = client(sockets, serve)
    exchange(plane, sock, pod)
    retiring = asyncio.ensure_future(plane.plane.drain(None))
    await asyncio.sleep(0)
    sock.send(b"for the other one")
    plane.settle()
    assert not readable(pod)
    assert plane.plane.serves == [serve], "whoever comes finds the listener here"
    for _, given in plane.plane.datagrams.hand_over():
        given.close()
    assert await retiring == 0


def test_an_udp_service_is_all_one_worker_s(sockets: Sockets) -> None:
    plane = Plane(sockets, place=(1, 2))
    pods = [udp_socket(sockets) for _ in range(2)]
    serve = serve_udp(plane, listen(ANYWHERE), *pods)
    exchange(plane, client(sockets, serve), pods[0])
    plane.shut()
