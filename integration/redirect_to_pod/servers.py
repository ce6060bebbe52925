"""Servers in the lab's pods, and clients of them, whose sockets the scenario holds in its own hands."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from integration.sockets import connect, inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.model.address import Address

PATIENCE_SECONDS = 3.0


@contextlib.contextmanager
def serving(lab: Lab, members: Sequence[str], *ports: int) -> Iterator[None]:
    """In each of these pods, on each port: TCP and UDP servers that say `NAME:PORT PEER`, TCP then echoes."""
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []
    try:
        for member in members:
            for port in ports:
                with inside(lab, member):
                    tcp = socket.create_server(("", port), backlog=4096)
                    sockets.append(tcp)
                    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    sockets.append(udp)
                udp.bind(("", port))
                for serve, each in ((_accept, tcp), (_answer, udp)):
                    threads.append(
                        threading.Thread(target=serve, args=(each, f"{member}:{port}"), daemon=True)
                    )
                    threads[-1].start()
        yield
    finally:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close() would not
        for thread in threads:
            thread.join(PATIENCE_SECONDS)  # or it would hold the port
        for each in sockets:
            each.close()


def ask(lab: Lab, member: str, address: Address) -> tuple[str, str]:
    """Who answers a new TCP connection, and whom it sees: `("server1:7000", "10.0.1.3")`."""
    with connect(lab, member, address, PATIENCE_SECONDS) as connection:
        return _told(connection)


def hold(lab: Lab, member: str, address: Address) -> tuple[socket.socket, str]:
    """A TCP connection that stays open, and who answered it."""
    connection = connect(lab, member, address, PATIENCE_SECONDS)
    return connection, _told(connection)[0]


def lives(connection: socket.socket) -> bool:
    """Whether the server at the other end still echoes."""
    try:
        connection.sendall(b"still there?")
        return connection.recv(100) == b"still there?"
    except OSError:
        return False


def udp_client(lab: Lab, member: str, address: Address) -> socket.socket:
    """A UDP socket that stays: its source port is that of one flow for as long as it is used."""
    with inside(lab, member):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE_SECONDS)
    client.connect((address.ip, address.port))
    return client


def ask_udp(client: socket.socket) -> tuple[str, str]:
    """Who answers, and whom it sees."""
    client.send(b"who?")
    return _told(client)


def _told(connection: socket.socket) -> tuple[str, str]:
    name, _, peer = connection.recv(100).decode().partition(" ")
    return name, peer


def _accept(listener: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, peer = listener.accept()
            connection.sendall(f"{name} {peer[0]}".encode())
            threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        while data := connection.recv(4096):
            connection.sendall(data)


def _answer(udp: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, peer = udp.recvfrom(4096)
            if not data:
                return
            udp.sendto(f"{name} {peer[0]}".encode(), peer)
