"""Plain TCP sockets whose other end is in the lab: a scenario holds client and server in its own hands.

A socket belongs to the namespace of the thread that makes it, for life: so a scenario steps into a member of
the lab, makes its sockets there, and steps out again.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from userproxy.lab.deployment import Lab
    from userproxy.model.address import Address

PATIENCE_SECONDS = 10.0
_CLONE_NEWNET = 0x40000000
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def inside(lab: Lab, member: str) -> AbstractContextManager[None]:
    """This thread is in the member's namespace for the time of the block."""
    return inside_namespace(lab.namespace(member))


@contextlib.contextmanager
def inside_namespace(name: str) -> Iterator[None]:
    """The same with a namespace that is not of a lab."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(there)
        os.close(home)


def connect(lab: Lab, member: str, address: Address, timeout: float = PATIENCE_SECONDS) -> socket.socket:
    """A TCP connection from a member of the lab.

    Raises:
        OSError: it was refused, or is not there after `timeout` seconds.
    """
    return connect_from(lab.namespace(member), address, timeout)


def connect_from(namespace: str, address: Address, timeout: float, source: str = "") -> socket.socket:
    """The same from a namespace that is not of a lab, and from one of its addresses if it has several."""
    with inside_namespace(namespace):
        return socket.create_connection((address.ip, address.port), timeout, (source, 0))


def connecting_from(namespace: str, address: Address) -> socket.socket:
    """A TCP connection from a namespace that is not there yet: `recv` waits until it is, and for more.

    Raises:
        AssertionError: it is there at once.
    """
    with inside_namespace(namespace):
        client = socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET)
    client.settimeout(0)
    assert client.connect_ex((address.ip, address.port)) == errno.EINPROGRESS
    assert not select.select([], [client], [], 0.05)[1], "it is answered already"
    client.settimeout(PATIENCE_SECONDS)
    return client


def udp_from(namespace: str, address: Address, timeout: float, source_port: int = 0) -> socket.socket:
    """A UDP socket in a namespace that only hears of this address; 0 leaves the source port to the kernel."""
    with inside_namespace(namespace):
        client = socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(timeout)
    client.bind(("", source_port))
    client.connect((address.ip, address.port))
    return client


def listen(lab: Lab, member: str, port: int, receive_buffer: int = 0) -> socket.socket:
    """A listening socket in a member of the lab, on all of its addresses.

    Args:
        lab: the lab.
        member: a host or pod of it.
        port: to listen on.
        receive_buffer: bytes, for what it accepts; 0 leaves it to the kernel.
    """
    with inside(lab, member):
        listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if receive_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    listener.bind(("", port))
    listener.listen(4096)
    listener.settimeout(PATIENCE_SECONDS)
    return listener


def accept(listener: socket.socket) -> socket.socket:
    """The next client, with the patience of a scenario."""
    connection, _ = listener.accept()
    connection.settimeout(PATIENCE_SECONDS)
    return connection


def pair(lab: Lab, frontend: Address, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """The two ends of a new connection through a Service: the client's, and the server's."""
    client = connect(lab, "client", frontend)
    return client, accept(listener)


def reset(connection: socket.socket) -> None:
    """Close it with an RST instead of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connection.close()


def read_all(connection: socket.socket) -> bytes:
    """Everything up to the end of the stream.

    Raises:
        ConnectionResetError: it was cut.
    """
    parts = []
    while part := connection.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def echoes(client: socket.socket, server: socket.socket, message: bytes = b"still there?") -> bool:
    """Whether the message gets from the client to the server, and back."""
    client.sendall(message)
    server.sendall(_read_exactly(server, len(message)))
    return _read_exactly(client, len(message)) == message


def seconds_until_refused(lab: Lab, member: str, address: Address) -> float:
    """How long a connection attempt took that was refused.

    Raises:
        AssertionError: it was not.
    """
    began = time.monotonic()
    try:
        connect(lab, member, address).close()
    except ConnectionRefusedError:
        return time.monotonic() - began
    raise AssertionError(f"a connection from {member} to {address} is not refused")


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise EOFError(f"the connection ended after {len(found)} of {count} bytes")
        found += part
    return found


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")
