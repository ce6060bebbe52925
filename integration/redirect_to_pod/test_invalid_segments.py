"""What conntrack calls invalid is not translated: from a pod of a Service it must not get to the client.

The client would have it from an address that it has never spoken to, and its reset would end a healthy
connection.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_pod.services import put, service, tcp
from integration.sockets import inside
from userproxy.lab.topology import CLIENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME, IP = "segments", "10.3.242.7"
PORTS = [tcp(80, 7000)]
POD = "10.0.2.77"
"""Another address of server2, which is of no Service by itself."""
SOURCE_PORT = 7999
SEGMENT = struct.pack(">HHIIBBHHH", SOURCE_PORT, 40000, 1, 1, 5 << 4, 0, 1000, 0, 0)
"""Without a flag, which is never valid."""
SHORT = 0.4


@pytest.fixture
def ends(lab: Lab) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Raw sockets at the pod and in the client, whose node is between them."""
    lab.exec("server2", "ip", "address", "replace", f"{POD}/32", "dev", "eth0")
    with contextlib.ExitStack() as stack:
        made = []
        for member in ("server2", "client"):
            with inside(lab, member):
                made.append(
                    stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP))
                )
        made[0].bind((POD, 0))
        yield made[0], made[1]


def arrives(ends: tuple[socket.socket, socket.socket]) -> bool:
    """Whether such a segment gets from the pod to the client."""
    pod, client = ends
    pod.sendto(SEGMENT, (CLIENT.ip, 0))
    until = time.monotonic() + SHORT
    while (left := until - time.monotonic()) > 0:
        client.settimeout(left)
        with contextlib.suppress(TimeoutError):
            packet, (source, _) = client.recvfrom(1500)
            if source == POD and packet[20:22] == SEGMENT[:2]:
                return True
    return False


def test_no_pod_of_a_service_gets_one_through_also_when_it_terminates(
    lab: Lab, ends: tuple[socket.socket, socket.socket]
) -> None:
    assert arrives(ends), "a pod that is of no Service may send what it likes"
    with service(lab, NAME, IP, PORTS, ["server1", POD]):
        assert not arrives(ends)
        put(lab, NAME, IP, PORTS, ["server1", POD], terminating=[POD])
        assert not arrives(ends), "it may have connections that go on"
        put(lab, NAME, IP, PORTS, ["server1"])
        assert arrives(ends)
    assert arrives(ends)
