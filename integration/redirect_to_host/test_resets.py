"""A reset is passed on as a reset: nobody may take half an answer for the whole."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_host.ends import Ends, connected
from integration.services import live_connections
from integration.sockets import read_all, reset
from integration.vitals import family
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME = "resets"


@pytest.fixture
def ends(lab: Lab) -> Iterator[Ends]:
    with connected(lab, NAME, "10.3.241.12", SERVER2) as both:
        yield both


def chosen(ends: Ends, who: str) -> Ends:
    """The named one first."""
    return ends if who == "client" else (ends[1], ends[0])


def assert_reset(sock: socket.socket) -> None:
    """It has failed with ECONNRESET (or EPIPE, which the kernel says after we have sent a FIN)."""
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(2000), "nothing was passed on within 2 s"
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.ECONNRESET, errno.EPIPE)


@pytest.mark.parametrize("resetter", ["client", "server"])
def test_a_reset_of_an_idle_connection(ends: Ends, resetter: str) -> None:
    one, other = chosen(ends, resetter)
    reset(one)
    assert_reset(other)


@pytest.mark.parametrize("resetter", ["client", "server"])
def test_a_reset_behind_data_that_was_not_read(ends: Ends, resetter: str) -> None:
    # Closing a socket that has unread bytes makes the kernel send an RST.
    one, other = chosen(ends, resetter)
    other.sendall(b"nobody reads this")
    time.sleep(0.1)
    one.close()
    assert_reset(other)


@pytest.mark.parametrize("resetter", ["client", "server"])
def test_a_reset_after_the_others_fin(ends: Ends, resetter: str) -> None:
    one, other = chosen(ends, resetter)
    other.shutdown(socket.SHUT_WR)
    assert one.recv(1) == b""
    reset(one)
    assert_reset(other)


@pytest.mark.parametrize("resetter", ["client", "server"])
def test_a_reset_after_the_own_fin(ends: Ends, resetter: str) -> None:
    one, other = chosen(ends, resetter)
    one.shutdown(socket.SHUT_WR)
    assert other.recv(1) == b""
    reset(one)
    # A socket in CLOSE-WAIT: the reset shows as soon as it sends, at the latest.
    assert_reset(other)


@pytest.mark.parametrize("resetter", ["client", "server"])
def test_a_reset_in_the_middle_of_a_transfer_that_nobody_reads(ends: Ends, resetter: str) -> None:
    one, other = chosen(ends, resetter)
    failure: list[OSError] = []

    def send() -> None:
        try:
            while True:
                other.sendall(bytes(1 << 20))
        except OSError as error:
            failure.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(0.5)  # every buffer on the way is full
    reset(one)
    sender.join(5)
    assert [error.errno for error in failure] in ([errno.ECONNRESET], [errno.EPIPE])


@pytest.mark.parametrize("resetter", ["client", "server"])
def test_a_sender_that_resets_while_its_bytes_are_held(lab: Lab, ends: Ends, resetter: str) -> None:
    one, other = chosen(ends, resetter)
    one.settimeout(0)
    sent = 0
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            sent += one.send(bytes(1 << 20))
        except BlockingIOError:
            time.sleep(0.05)
    assert sent > 1 << 20
    reset(one)
    wait_until("the connection is over", lambda: live_connections(lab, NAME) == 0, 2.0)
    with pytest.raises(ConnectionResetError):
        read_all(other)


def test_half_a_reply_of_a_worker_that_is_killed_does_not_look_complete(lab: Lab, ends: Ends) -> None:
    client, server = ends
    client.sendall(b"half of the request")
    server.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf of the reply")  # it ends when the connection does
    assert client.recv(1 << 16).endswith(b"half of the reply")
    assert server.recv(1 << 16) == b"half of the request"
    for worker in family(lab.daemon("host1").pid)[1:]:
        os.kill(worker, signal.SIGKILL)
    for end in ends:
        with pytest.raises(ConnectionResetError):
            end.recv(1)
