"""TCP's urgent data passes the proxy as it would pass a router: whole, in order, urgent, and at no cost."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from integration.services import live_connections, publish, withdraw
from integration.sockets import echoes, listen, pair, read_all, reset
from integration.vitals import cpu_seconds, family
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME = "urgent"
CLIENTS = 8
WATCHED_SECONDS = 2.0
LARGE = bytes(range(256)) * 4096

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Who sends and who receives, at the two ends of a connection through the proxy."""
    with listen(lab, "server2", 7000) as listener:
        frontend = publish(lab, NAME, "10.3.241.15", [Address(SERVER2.ip, 7000)])
        client, server = pair(lab, frontend, listener)
        with client, server:
            yield (client, server) if request.param == "up" else (server, client)
    wait_until("the connection is over", lambda: live_connections(lab, NAME) == 0, 5.0)
    withdraw(lab, NAME)


DIRECTIONS = pytest.mark.parametrize("ends", ["up", "down"], indirect=True)


def take_inline(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


@contextlib.contextmanager
def stopped(lab: Lab) -> Iterator[None]:
    """The daemon and its workers do nothing for the time of the block."""
    processes = family(lab.daemon("host1").pid)
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def unacknowledged(sock: socket.socket) -> int:
    """How many bytes the peer's kernel has yet to acknowledge."""
    count: int
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return count


@DIRECTIONS
def test_every_byte_arrives_in_order_and_the_connection_goes_on(ends: Ends) -> None:
    sender, receiver = ends
    take_inline(receiver)
    assert echoes(sender, receiver)
    spoken = b""
    for round_ in range(20):
        for flags in (0, socket.MSG_OOB, 0):
            word = b"%d of %d;" % (flags, round_)
            sender.sendall(word, flags)
            spoken += word
    with ThreadPoolExecutor(1) as reader:
        heard = reader.submit(read_all, receiver)
        sender.sendall(LARGE)
        sender.send(b"!", socket.MSG_OOB)
        sender.shutdown(socket.SHUT_WR)
        assert heard.result() == spoken + LARGE + b"!"
    receiver.sendall(b"thank you")
    receiver.shutdown(socket.SHUT_WR)
    assert read_all(sender) == b"thank you"


@DIRECTIONS
def test_none_gives_way_to_the_next_while_the_proxy_is_busy(lab: Lab, ends: Ends) -> None:
    sender, receiver = ends
    take_inline(receiver)
    with stopped(lab):
        for _ in range(3):
            sender.send(b"!", socket.MSG_OOB)
        wait_until("the node has them", lambda: unacknowledged(sender) == 0, 5.0)
    sender.shutdown(socket.SHUT_WR)
    assert read_all(receiver) == b"!!!"


@DIRECTIONS
def test_it_is_urgent_on_the_other_side_too(ends: Ends) -> None:
    # As telnet's Synch, an FTP client's abort and a database's break need it: it is not among the data.
    sender, receiver = ends
    sender.sendall(b"before")
    assert receiver.recv(99) == b"before"
    told = select.poll()
    told.register(receiver, select.POLLPRI)
    sender.send(b"!", socket.MSG_OOB)
    assert told.poll(10_000)
    receiver.settimeout(None)  # with one, recv() waits for other bytes
    assert receiver.recv(1, socket.MSG_OOB) == b"!"
    sender.sendall(b"after")
    assert receiver.recv(99) == b"after"


@pytest.mark.parametrize("reads", [True, False], ids=["reader", "nobody-reads"])
def test_clients_that_send_it_cost_no_processor_time(lab: Lab, reads: bool) -> None:
    pid = lab.daemon("host1").pid
    with listen(lab, "server2", 7000, 0 if reads else 8192) as listener:
        frontend = publish(lab, NAME, "10.3.241.15", [Address(SERVER2.ip, 7000)])
        idle = cpu_in(pid, WATCHED_SECONDS)
        pairs = [pair(lab, frontend, listener) for _ in range(CLIENTS)]
        for client, server in pairs:
            if reads:
                client.send(b"before!", socket.MSG_OOB)
                client.sendall(b"behind")
                take_inline(server)
                assert server.recv(6) == b"before"
            else:
                fill(client)
        used = cpu_in(pid, WATCHED_SECONDS)
        print(f"{CLIENTS} clients: {used:.2f} s of CPU in {WATCHED_SECONDS:g} s, {idle:.2f} s without them")
        assert used < idle + 0.1 * WATCHED_SECONDS
        for client, server in pairs:
            reset(client)
            server.close()
    wait_until("they are over", lambda: live_connections(lab, NAME) == 0, 5.0)
    withdraw(lab, NAME)


def fill(client: socket.socket) -> None:
    """Send, with an urgent byte now and then, until nothing more is taken."""
    client.setblocking(False)  # noqa: FBT003 - takes no keyword
    taken = time.monotonic()
    while time.monotonic() - taken < 0.3:
        try:
            client.send(bytes(5000))
            client.send(b"!", socket.MSG_OOB)
            taken = time.monotonic()
        except BlockingIOError:
            time.sleep(0.02)


def cpu_in(pid: int, seconds: float) -> float:
    """The processor time that the daemon and its workers use meanwhile."""
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return cpu_seconds(pid) - before
