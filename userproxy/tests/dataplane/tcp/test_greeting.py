"""The PROXY protocol: what backends are told of their clients, and what balancers in front say of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.greeting import is_announced
from userproxy.dataplane.tcp.lifecycle import Event, State
from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.model.settings import ProxyProtocol, Settings
from userproxy.net.proxy_protocol import decode, encode, for_own_check
from userproxy.tests.dataplane.rig.proxy import Narrow, NarrowAndSlow, Slow, is_reset, reset

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.dataplane.tcp.connection import Connection
    from userproxy.tests.dataplane.rig.proxy import Proxy

LOOPBACK = ("127.0.0.0/8",)
CLIENT, FRONTEND = Address("203.0.113.7", 40000), Address("198.51.100.1", 443)
VERSIONS = (ProxyProtocol.V1, ProxyProtocol.V2)


def told(proxy: Proxy, there: socket, size: int) -> bytes:
    """So many bytes that a backend gets."""
    said = b""
    while len(said) < size:
        said += proxy.received(there)
    return said


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_is_named_before_its_first_byte(proxy: Proxy, version: ProxyProtocol) -> None:
    backend = proxy.listening()
    proxy.serve(backend, settings=Settings(proxy_protocol=version))
    connection, client = proxy.accept(b"hello")
    there = proxy.taken(backend)
    said = told(proxy, there, 40)
    header = decode(said)
    assert header is not None
    assert header.client == Address(*client.getsockname())
    assert header.destination == Address(*client.getpeername())
    assert said[header.size :] + told(proxy, there, 5 - len(said[header.size :])) == b"hello"
    assert connection.bytes_up == len(b"hello")
    client.close()
    there.close()
    proxy.until(proxy.nothing_is_left)


@pytest.mark.parametrize("kind", [Slow, Narrow, NarrowAndSlow])
def test_also_one_that_takes_its_time(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, kind: type[socket]
) -> None:
    monkeypatch.setattr("userproxy.net.sockets.socket", kind)
    backend = proxy.listening()
    proxy.serve(backend, settings=Settings(proxy_protocol=ProxyProtocol.V1))
    _, client = proxy.accept()
    client.send(b"hello")
    there = proxy.taken(backend)
    expected = encode(ProxyProtocol.V1, Address(*client.getsockname()), Address(*client.getpeername()))
    assert told(proxy, there, len(expected) + 5) == expected + b"hello"


def test_the_next_backend_is_told_when_one_refuses(proxy: Proxy) -> None:
    refusing, backend = proxy.bound(), proxy.listening()
    proxy.serve(refusing, backend, settings=Settings(proxy_protocol=ProxyProtocol.V2))
    for _ in range(2):  # one of them meets the one that refuses first
        proxy.accept(b"hello")
        header = decode(proxy.received(proxy.taken(backend)))
        assert header is not None


def test_version_2_names_the_connection_and_the_service(proxy: Proxy) -> None:
    backend = proxy.listening()
    proxy.serve(backend, settings=Settings(proxy_protocol=ProxyProtocol.V2))
    connection, _ = proxy.accept()
    said = proxy.received(proxy.taken(backend))
    assert proxy.table.id_of(connection).encode() in said
    assert b"shop/cart:http" in said


def test_nothing_is_said_by_default(proxy: Proxy) -> None:
    proxy.serve(backend := proxy.listening())
    proxy.accept(b"hello")
    assert proxy.received(proxy.taken(backend)) == b"hello"


@pytest.fixture
def backend(proxy: Proxy) -> socket:
    """Behind a Service that has a balancer in front."""
    backend = proxy.listening()
    proxy.serve(backend, settings=Settings(accept_proxy_protocol=LOOPBACK))
    return backend


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_is_the_one_that_is_named(proxy: Proxy, backend: socket, version: ProxyProtocol) -> None:
    connection, balancer = proxy.accept(encode(version, CLIENT, FRONTEND) + b"hello")
    there = proxy.taken(backend)
    assert proxy.received(there) == b"hello"
    assert connection.client == CLIENT
    assert connection.bytes_up == len(b"hello")
    balancer.close()
    there.close()
    proxy.until(proxy.nothing_is_left)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_header_may_come_byte_by_byte(proxy: Proxy, backend: socket, version: ProxyProtocol) -> None:
    connection, balancer = proxy.accept()
    for byte in encode(version, CLIENT, FRONTEND):
        assert connection.state is State.GREETING
        balancer.send(bytes([byte]))
        for _ in range(3):
            proxy.poller.dispatch()
    balancer.send(b"hello")
    assert proxy.received(proxy.taken(backend)) == b"hello"
    assert connection.client == CLIENT


def test_it_is_handed_on_to_backends_that_want_to_know(proxy: Proxy) -> None:
    both = Settings(accept_proxy_protocol=LOOPBACK, proxy_protocol=ProxyProtocol.V1)
    proxy.serve(backend := proxy.listening(), settings=both)
    header = encode(ProxyProtocol.V1, CLIENT, FRONTEND)
    proxy.accept(encode(ProxyProtocol.V2, CLIENT, FRONTEND) + b"hello")
    assert told(proxy, proxy.taken(backend), len(header) + 5) == header + b"hello"


def test_a_balancers_own_check_is_served_under_its_own_address(proxy: Proxy, backend: socket) -> None:
    connection, balancer = proxy.accept(for_own_check(ProxyProtocol.V2) + b"ping")
    assert proxy.received(proxy.taken(backend)) == b"ping"
    assert connection.client == Address(*balancer.getsockname())


def test_whoever_says_something_else_is_reset(proxy: Proxy, backend: socket) -> None:
    connection, balancer = proxy.accept(b"GET / HTTP/1.1\r\n\r\n")
    assert is_reset(proxy, balancer)
    assert connection.reason is Reason.NOT_GREETED
    assert proxy.nothing_is_left()
    with pytest.raises(BlockingIOError):
        backend._accept()  # type: ignore[attr-defined]


def test_whoever_goes_away_meanwhile_is_forgotten(proxy: Proxy, backend: socket) -> None:  # noqa: ARG001
    for leave in (lambda sock: sock.close(), reset):
        connection, balancer = proxy.accept(b"PROXY ")
        proxy.poller.dispatch()
        assert connection.state is State.GREETING
        leave(balancer)
        assert proxy.reaches(connection, State.CLOSED)
        assert connection.reason is Reason.NOT_GREETED
        assert proxy.nothing_is_left()


def test_whoever_says_nothing_is_reset_after_a_while(proxy: Proxy, backend: socket) -> None:  # noqa: ARG001
    connection, balancer = proxy.accept()
    proxy.clock.now += 4.9
    proxy.timers.tick()
    assert connection.state is State.GREETING
    proxy.clock.now += 0.2
    proxy.timers.tick()
    assert connection.reason is Reason.NOT_GREETED
    assert is_reset(proxy, balancer)
    assert proxy.nothing_is_left()


@pytest.mark.parametrize("event", [Event.KILLED, Event.SHUTDOWN])
def test_it_can_be_ended_meanwhile(proxy: Proxy, backend: socket, event: Event) -> None:  # noqa: ARG001
    connection, balancer = proxy.accept()
    connection.end(event)
    assert is_reset(proxy, balancer)
    assert proxy.nothing_is_left()


def test_a_client_that_is_named_too_often_is_reset(proxy: Proxy) -> None:
    one = Settings(accept_proxy_protocol=LOOPBACK, max_connections_per_client=1)
    proxy.serve(backend := proxy.listening(), settings=one)
    header = encode(ProxyProtocol.V2, CLIENT, FRONTEND)
    first, _ = proxy.accept(header)
    proxy.taken(backend)
    second, balancer = proxy.accept(header)
    assert is_reset(proxy, balancer)
    other, _ = proxy.accept(encode(ProxyProtocol.V2, Address("203.0.113.8", 1), FRONTEND))
    proxy.taken(backend)
    assert (first.state, second.reason, other.state) == (
        State.ESTABLISHED,
        Reason.TOO_MANY,
        State.ESTABLISHED,
    )


def test_nobody_else_is_believed(proxy: Proxy) -> None:
    elsewhere = Settings(accept_proxy_protocol=("192.0.2.0/24", "2001:db8::/32"))
    proxy.serve(backend := proxy.listening(), settings=elsewhere)
    header = encode(ProxyProtocol.V1, CLIENT, FRONTEND)
    connection, client = proxy.accept(header)
    assert proxy.received(proxy.taken(backend)) == header
    assert _is_of(connection, client)


def test_networks_are_those_of_both_families() -> None:
    networks = ("192.0.2.0/24", "2001:db8::/32")
    assert [is_announced(ip, networks) for ip in ("192.0.2.9", "2001:db8::9", "192.0.3.9", "fd00::1")] == [
        True,
        True,
        False,
        False,
    ]
    assert not is_announced("192.0.2.9", ())


def _is_of(connection: Connection, client: socket) -> bool:
    return connection.client == Address(*client.getsockname())


def test_who_is_one_too_many_is_named_though_a_balancer_is_in_front(proxy: Proxy) -> None:
    one = Settings(accept_proxy_protocol=LOOPBACK, max_connections_per_client=1)
    proxy.serve(proxy.listening(), settings=one)
    proxy.accept(encode(ProxyProtocol.V1, CLIENT, FRONTEND))
    another, _ = proxy.accept(encode(ProxyProtocol.V1, CLIENT, FRONTEND))
    proxy.until(lambda: another.reason is Reason.TOO_MANY)
    assert another.client == CLIENT


def test_a_balancer_that_is_a_client_itself_does_not_stand_in_its_own_way(proxy: Proxy) -> None:
    one = Settings(accept_proxy_protocol=LOOPBACK, max_connections_per_client=1)
    proxy.serve(backend := proxy.listening(), settings=one)
    connection, _ = proxy.accept(encode(ProxyProtocol.V1, Address("127.0.0.1", 40000), FRONTEND) + b"hello")
    assert proxy.received(proxy.taken(backend)) == b"hello"
    assert connection.reason is None
