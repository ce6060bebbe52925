"""A reader that stops holds its sender up, and costs the proxy no memory."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from integration.services import published
from integration.sockets import listen, pair
from integration.vitals import cpu_seconds, resident_bytes
from userproxy.lab.topology import SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket

    from userproxy.lab.deployment import Lab

NAME = "slow"
TOTAL = 200 << 20
STOP_SECONDS = 10.0
CHUNK = bytes(range(256)) * 4096


@pytest.mark.parametrize("reader", ["server", "client"])
def test_a_reader_that_stops_for_ten_seconds(lab: Lab, reader: str) -> None:
    pid = lab.daemon("host1").pid
    with (
        listen(lab, "server2", 7000) as listener,
        published(lab, NAME, "10.3.241.14", [Address(SERVER2.ip, 7000)]) as frontend,
    ):
        client, server = pair(lab, frontend, listener)
        source, sink = (client, server) if reader == "server" else (server, client)
        source.settimeout(60)
        sink.settimeout(60)
        memory = resident_bytes(pid)
        sender = threading.Thread(target=send, args=(source,))
        with client, server:
            sender.start()
            time.sleep(1)
            used = cpu_seconds(pid)
            most = memory
            resumes = time.monotonic() + STOP_SECONDS
            while time.monotonic() < resumes:
                most = max(most, resident_bytes(pid))
                time.sleep(0.1)
            used = cpu_seconds(pid) - used
            received, digest = 0, hashlib.sha256()
            while part := sink.recv(1 << 20):
                received += len(part)
                digest.update(part)
                most = max(most, resident_bytes(pid)) if received % 64 == 0 else most
            most = max(most, resident_bytes(pid))
            sender.join()
    growth = most - memory
    print(
        f"{reader} stops for {STOP_SECONDS:g} s: the daemon grew by {growth / 1e6:.1f} MB, {used:.2f} s CPU"
    )
    assert received == TOTAL
    assert digest.digest() == expected()
    assert growth < 5_000_000
    assert used < 0.5


def send(source: socket.socket) -> None:
    for _ in range(TOTAL // len(CHUNK)):
        source.sendall(CHUNK)
    source.close()


def expected() -> bytes:
    digest = hashlib.sha256()
    for _ in range(TOTAL // len(CHUNK)):
        digest.update(CHUNK)
    return digest.digest()
