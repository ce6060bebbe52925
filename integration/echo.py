"""A server that says who it is and whom it sees: so a scenario knows which way its packets went."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from integration.sockets import inside_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 3.0


@contextlib.contextmanager
def echo_server(namespace: str, address: tuple[str, int], name: str) -> Iterator[None]:
    """TCP and UDP on an address in a namespace, in its family alone, for the time of the block.

    Each client is told `NAME CLIENT-IP`, by TCP as soon as it is connected; TCP echoes from then on.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with inside_namespace(namespace):
        tcp = socket.create_server(address, family=family, backlog=4096)
        udp = socket.socket(family, socket.SOCK_DGRAM)
    with tcp, udp:
        if family is socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as `create_server` does
        udp.bind(address)
        threads = [
            threading.Thread(target=_accept, args=(tcp, name), daemon=True),
            threading.Thread(target=_answer, args=(udp, name), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for each in (tcp, udp):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close() would not
            for thread in threads:
                thread.join(PATIENCE_SECONDS)  # or it would hold the port


def _accept(listener: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, peer = listener.accept()
            greeting = f"{name} {peer[0]}".encode()
            threading.Thread(target=_echo, args=(connection, greeting), daemon=True).start()


def _echo(connection: socket.socket, greeting: bytes) -> None:
    with contextlib.suppress(OSError), connection:
        connection.sendall(greeting)
        while data := connection.recv(4096):
            connection.sendall(data)


def _answer(udp: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, peer = udp.recvfrom(4096)
            if not data:
                return
            udp.sendto(f"{name} {peer[0]}".encode(), peer)
