"""Servers in the lab's pods, and clients of them, whose sockets the scenario holds in its own hands."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from integration.echo import PATIENCE_SECONDS, echo_server
from integration.sockets import connect, inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.model.address import Address


@contextlib.contextmanager
def serving(lab: Lab, members: Sequence[str], *ports: int) -> Iterator[None]:
    """In each of these pods, on each port: TCP and UDP servers that say `NAME:PORT PEER`, TCP then echoes."""
    with contextlib.ExitStack() as stack:
        for member in members:
            for port in ports:
                stack.enter_context(echo_server(lab.namespace(member), ("", port), f"{member}:{port}"))
        yield


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
