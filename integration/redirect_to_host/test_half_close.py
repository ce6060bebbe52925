"""A TCP connection ends in each direction by itself, also through the proxy."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_host.ends import Ends, connected
from integration.services import live_connections
from integration.sockets import echoes, read_all
from integration.vitals import cpu_seconds
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME = "halves"
REPLY = os.urandom(10 << 20)


@pytest.fixture
def ends(lab: Lab) -> Iterator[Ends]:
    with connected(lab, NAME, "10.3.241.11", SERVER2) as both:
        yield both


def test_a_client_that_has_finished_gets_its_whole_reply(ends: Ends) -> None:
    client, server = ends
    client.sendall(b"that is all I ask")
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b"that is all I ask"
    sender = threading.Thread(target=send_and_close, args=(server, REPLY))
    sender.start()
    assert hashlib.sha256(read_all(client)).digest() == hashlib.sha256(REPLY).digest()
    sender.join()


def test_a_server_that_has_finished_still_gets_what_the_client_sends(ends: Ends) -> None:
    client, server = ends
    server.sendall(b"goodbye")
    server.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"goodbye"
    time.sleep(0.2)  # the proxy is idle in between
    sender = threading.Thread(target=send_and_close, args=(client, REPLY))
    sender.start()
    assert hashlib.sha256(read_all(server)).digest() == hashlib.sha256(REPLY).digest()
    sender.join()


@pytest.mark.parametrize("first", ["client", "server"])
def test_both_sides_finishing_ends_it_in_order(lab: Lab, ends: Ends, first: str) -> None:
    one, other = ends if first == "client" else ends[::-1]
    assert echoes(*ends)
    one.shutdown(socket.SHUT_WR)
    assert other.recv(1) == b""
    assert live_connections(lab, NAME) == 1
    other.close()
    assert one.recv(1) == b""
    wait_until("the connection is over", lambda: live_connections(lab, NAME) == 0, 2.0)


@pytest.mark.parametrize("finisher", ["client", "server"])
def test_a_half_closed_connection_with_a_reader_that_stops_costs_no_processor_time(
    lab: Lab, ends: Ends, finisher: str
) -> None:
    finished, sender = ends if finisher == "client" else ends[::-1]
    finished.shutdown(socket.SHUT_WR)
    assert sender.recv(1) == b""
    thread = threading.Thread(target=send_and_close, args=(sender, REPLY * 3))
    thread.start()
    time.sleep(0.5)  # whatever buffers there are on the way are full now
    pid = lab.daemon("host1").pid
    before = cpu_seconds(pid)
    time.sleep(2)
    used = cpu_seconds(pid) - before
    print(f"half-closed by the {finisher}, nobody reads: {used * 1000:.0f} ms of CPU in 2 s")
    assert used < 0.2
    assert len(read_all(finished)) == 3 * len(REPLY)
    thread.join()


def test_everything_sent_before_both_ends_closed_arrives(ends: Ends) -> None:
    # Small enough for the buffers: the sender is gone, with FIN sent both ways, before anybody reads.
    client, server = ends
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.sendall(REPLY[:50_000])
    server.close()
    time.sleep(0.2)
    assert read_all(client) == REPLY[:50_000]


def send_and_close(sock: socket.socket, data: bytes) -> None:
    sock.settimeout(30)
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
