"""Clients that connect are let in, also in bursts, and when the system is short of something."""

from __future__ import annotations

import errno
import os
import select
import socket as net
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.listener import Listener, listen
from userproxy.model.address import Address
from userproxy.net.sockets import RESET_ON_CLOSE, original_destination
from userproxy.tests.sockets import open_fds

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator

    from userproxy.net.poller import Poller
    from userproxy.tests.sockets import Sockets

PATIENCE = 20.0


class Port:
    """A listener on a port of its own, and what it says."""

    def __init__(self, sockets: Sockets, ip: str = "127.0.0.1") -> None:
        self._sockets = sockets
        self.poller: Poller = sockets.poller()
        self.sock = sockets.keep(listen(Address(ip, 0)))
        self.address = Address(*self.sock.getsockname()[:2])
        self.admitted: list[tuple[socket, tuple[str, int]]] = []
        self.exhausted: list[int | None] = []
        self.most = 1 << 30
        self.failing = False
        self.listener = Listener(
            self.address,
            self.sock,
            self.poller,
            self._admit,
            lambda error: self.exhausted.append(error.errno),
        )

    def _admit(self, client: socket, peer: tuple[str, int]) -> bool:
        self.admitted.append((self._sockets.keep(client), peer))
        if self.failing:
            raise RuntimeError("a bug")
        return len(self.admitted) < self.most

    def clients(self, count: int) -> list[socket]:
        """Clients that have connected."""
        found = []
        for _ in range(count):
            client = net.create_connection((self.address.ip, self.address.port))
            found.append(self._sockets.keep(client))
        return found

    @property
    def peers(self) -> list[tuple[str, int]]:
        """Of those who were let in."""
        return [peer for _, peer in self.admitted]

    def waits(self) -> bool:
        """Whether the poller wants to be called."""
        return bool(select.select([self.poller._epoll], [], [], 0)[0])

    def until(self, count: int) -> None:
        """Serve until so many were let in."""
        while len(self.admitted) < count:
            assert select.select([self.poller._epoll], [], [], PATIENCE)[0]
            self.poller.dispatch()


@pytest.fixture
def port(sockets: Sockets) -> Iterator[Port]:
    port = Port(sockets)
    yield port
    if port.sock.fileno() >= 0:
        port.listener.close()


class Accept:
    """What the kernel's accept says, before it says the truth again."""

    def __init__(self, port: Port, *numbers: int) -> None:
        self.numbers = list(numbers)
        self._true = port.sock._accept  # type: ignore[attr-defined]  # what socket.accept() calls
        self._sock = port.sock
        port.listener._sock = self  # type: ignore[assignment]

    def _accept(self) -> tuple[int, tuple[str, int]]:
        if self.numbers:
            number = self.numbers.pop(0)
            raise OSError(number, os.strerror(number))
        found: tuple[int, tuple[str, int]] = self._true()
        return found

    def fileno(self) -> int:
        """Of `socket`."""
        return self._sock.fileno()

    def close(self) -> None:
        """Of `socket`."""
        self._sock.close()


@pytest.mark.parametrize("count", [1, 40])
def test_a_burst_of_clients_is_let_in(port: Port, count: int) -> None:
    clients = port.clients(count)
    port.until(count)
    assert sorted(port.peers) == sorted(client.getsockname() for client in clients)
    assert not port.waits()


def test_a_burst_takes_turns_with_the_bytes_of_others(port: Port) -> None:
    port.clients(20)
    port.until(1)
    port.admitted.clear()
    port.clients(20)
    assert select.select([port.poller._epoll], [], [], PATIENCE)[0]
    port.listener.on_ready(select.EPOLLIN)
    assert len(port.admitted) == 16
    port.until(20)


def test_a_client_is_let_in_ready_to_use(port: Port) -> None:
    (client,) = port.clients(1)
    port.until(1)
    accepted, peer = port.admitted[0]
    assert peer == client.getsockname()
    assert not os.get_blocking(accepted.fileno())
    assert not os.get_inheritable(accepted.fileno())
    assert accepted.getsockopt(net.IPPROTO_TCP, net.TCP_NODELAY)
    assert accepted.getsockopt(net.SOL_SOCKET, net.SO_KEEPALIVE)
    assert accepted.getsockopt(net.IPPROTO_TCP, net.TCP_KEEPIDLE) == 15
    assert accepted.getsockopt(net.IPPROTO_TCP, net.TCP_KEEPINTVL) == 15
    assert accepted.getsockopt(net.SOL_SOCKET, net.SO_OOBINLINE)
    assert accepted.getsockopt(net.SOL_SOCKET, net.SO_LINGER, 8) == RESET_ON_CLOSE
    with pytest.raises(BlockingIOError):
        accepted.recv(1)
    assert original_destination(accepted) is None, "it came to the listener itself"


def test_clients_come_over_ipv6_too(sockets: Sockets) -> None:
    port = Port(sockets, "::1")
    (client,) = port.clients(1)
    port.until(1)
    assert port.peers == [client.getsockname()[:2]]
    assert port.admitted[0][0].family == net.AF_INET6
    assert original_destination(port.admitted[0][0]) is None
    port.listener.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_out_of_resources_it_says_so_and_the_client_waits(port: Port, number: int) -> None:
    accept = Accept(port, number)
    port.clients(1)
    assert select.select([port.poller._epoll], [], [], PATIENCE)[0]
    port.listener.on_ready(select.EPOLLIN)
    assert port.exhausted == [number]
    assert port.admitted == []
    assert not accept.numbers
    port.until(1)


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EPERM])
def test_a_client_that_is_gone_already_is_skipped(port: Port, number: int) -> None:
    Accept(port, number, number)
    port.clients(1)
    assert select.select([port.poller._epoll], [], [], PATIENCE)[0]
    port.listener.on_ready(select.EPOLLIN)
    assert len(port.admitted) == 1
    assert port.exhausted == []


def test_when_the_others_must_wait_they_do(port: Port) -> None:
    port.most = 1
    port.clients(3)
    assert select.select([port.poller._epoll], [], [], PATIENCE)[0]
    port.listener.on_ready(select.EPOLLIN)
    assert len(port.admitted) == 1
    port.most = 1 << 30
    port.until(3)


def test_clients_wait_in_the_queue_of_the_kernel_until_they_may_come_in(port: Port) -> None:
    port.listener.wait(waits=True)
    port.clients(3)
    assert select.select([port.sock], [], [], PATIENCE)[0]
    assert not port.waits()
    port.listener.wait(waits=False)
    port.until(3)


def test_one_that_cannot_be_let_in_does_not_keep_out_the_others(port: Port) -> None:
    port.failing = True
    port.clients(2)
    port.until(2)
    assert not port.waits()


def test_closing_lets_in_who_had_connected_before(port: Port) -> None:
    count = 40
    port.clients(count)
    port.listener.close()
    assert len(port.admitted) == count
    assert port.sock.fileno() == -1
    assert not port.poller._handlers
    with pytest.raises(ConnectionRefusedError):
        port.clients(1)


def test_a_listener_that_another_process_has_too_is_left_alone_after_closing(
    sockets: Sockets, port: Port
) -> None:
    with net.socket(fileno=os.dup(port.sock.fileno())) as shared:
        port.listener.close()
        port.clients(1)
        assert select.select([shared], [], [], PATIENCE)[0]
        assert not port.waits(), "or it is called for every client of the other process, in vain"
    del sockets


def test_it_is_closed_even_if_one_of_the_last_cannot_be_let_in(port: Port) -> None:
    port.failing = True
    port.clients(1)
    with pytest.raises(RuntimeError, match="a bug"):
        port.listener.close()
    assert port.sock.fileno() == -1
    assert not port.poller._handlers


def test_a_port_that_is_taken_costs_no_descriptor(sockets: Sockets, port: Port) -> None:
    del sockets
    before = open_fds()
    with pytest.raises(OSError, match="Address already in use") as taken:
        listen(port.address)
    assert taken.value.errno == errno.EADDRINUSE
    assert open_fds() == before


def test_an_address_of_another_node_is_an_error(sockets: Sockets) -> None:
    del sockets
    with pytest.raises(OSError, match="Cannot assign requested address") as foreign:
        listen(Address("192.0.2.1", 0))
    assert foreign.value.errno == errno.EADDRNOTAVAIL
