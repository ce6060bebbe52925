"""A connection that is half-closed and silent is given up: nobody's file descriptors are held for ever."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from integration.services import live_connections, published
from integration.sockets import listen, pair
from userproxy.lab.deployment import Lab
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Generator

NAME = "lingers"
LINGER_SECONDS = 2.0


@pytest.fixture(scope="module")
def hasty_lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """A daemon with a linger time that a test can wait for; 60 s is the default."""
    with Lab(f"{lab_name}-linger", daemons=False) as made:
        made.start_daemon("host1", "--linger-seconds", str(LINGER_SECONDS))
        yield made


def test_a_silent_half_closed_connection_is_reset_and_a_lively_or_open_one_is_not(hasty_lab: Lab) -> None:
    lab = hasty_lab
    with (
        listen(lab, "server2", 7000) as listener,
        published(lab, NAME, "10.3.241.13", [Address(SERVER2.ip, 7000)]) as frontend,
    ):
        silent, silent_server = pair(lab, frontend, listener)
        lively, lively_server = pair(lab, frontend, listener)
        still_open, open_server = pair(lab, frontend, listener)
        began = time.monotonic()
        for finished, peer in ((silent, silent_server), (lively, lively_server)):
            finished.shutdown(socket.SHUT_WR)
            assert peer.recv(1) == b""
        received = b""
        while live_connections(lab, NAME) == 3 and time.monotonic() - began < 10:
            lively_server.sendall(b".")
            received += lively.recv(1)
            time.sleep(0.2)
        seconds = time.monotonic() - began
        print(f"half-closed and silent: given up after {seconds:.1f} s (linger {LINGER_SECONDS:g} s)")
        assert LINGER_SECONDS - 0.1 <= seconds < LINGER_SECONDS + 2
        with pytest.raises(ConnectionResetError):
            silent.recv(1)
        for _ in range(15):
            lively_server.sendall(b".")
            assert lively.recv(1) == b"."
            time.sleep(0.2)
        assert live_connections(lab, NAME) == 2
        lively_server.close()
        assert lively.recv(1) == b""
        open_server.sendall(b"x")
        assert still_open.recv(1) == b"x"
        for each in (silent, silent_server, lively, still_open, open_server):
            each.close()
        wait_until("all are over", lambda: live_connections(lab, NAME) == 0, 5.0)
