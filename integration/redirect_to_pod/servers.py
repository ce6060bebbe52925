"""Servers in the lab's pods, and clients of them, whose sockets the scenario holds in its own hands."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from typing import TYPE_CHECKING

from integration.echo import PATIENCE_SECONDS, echo_server
from integration.sockets import connect, udp_from

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.model.address import Address


@contextlib.contextmanager
def serving(lab: Lab, members: Sequence[str], *ports: int) -> Iterator[None]:
    """In each of these pods, on each port: TCP and UDP servers that say `NAME:PORT PEER`, TCP then echoes.

    They serve both families.
    """
    with contextlib.ExitStack() as stack:
        for member, port, ip in itertools.product(members, ports, ("", "::")):
            stack.enter_context(echo_server(lab.namespace(member), (ip, port), f"{member}:{port}"))
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
    return udp_from(lab.namespace(member), address, PATIENCE_SECONDS)


def ask_udp(client: socket.socket) -> tuple[str, str]:
    """Who answers, and whom it sees."""
    client.send(b"who?")
    return _told(client)


class Asked:
    """What clients were answered who asked without a pause.

    Attributes:
        answered: how often, by who answered.
        failures: what happened to the others, with who asked.
    """

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []


@contextlib.contextmanager
def asking(
    lab: Lab, members: Sequence[str], ways: Mapping[str, Callable[[Lab, str], str]]
) -> Iterator[Asked]:
    """Clients in these members ask in each of these ways in turn, for the time of the block."""
    asked, over = Asked(), threading.Event()

    def ask_on(member: str) -> None:
        while not over.is_set():
            for way, who_answers in ways.items():
                try:
                    asked.answered[f"{way} {who_answers(lab, member)}"] += 1
                except OSError as error:
                    asked.failures.append(f"{way} {member}: {error!r}")

    threads = [threading.Thread(target=ask_on, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _told(connection: socket.socket) -> tuple[str, str]:
    name, _, peer = connection.recv(100).decode().partition(" ")
    return name, peer
