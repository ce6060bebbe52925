"""SIGTERM where the rules are to go: who is connected finishes, new clients are refused, nothing is left."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from integration.daemon.traces import assert_same, kernel_state
from integration.services import publish
from integration.sockets import echoes, listen, pair, read_all, seconds_until_refused
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER2, SERVER_SERVICE
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME = "drains"
REMOVE = ("--on-stop", "remove")
BODY = bytes(range(256)) * 4096 * 50


@contextlib.contextmanager
def connected(lab: Lab) -> Iterator[tuple[Address, socket.socket, socket.socket]]:
    """A Service, and a connection through it: the frontend, the client's end and the server's.

    The Service stays, since the daemon may be gone at the end of the block.
    """
    with listen(lab, "server2", 7000) as listener:
        frontend = publish(lab, NAME, "10.3.241.30", [Address(SERVER2.ip, 7000)])
        client, server = pair(lab, frontend, listener)
        with client, server:
            yield frontend, client, server


def stopping(lab: Lab) -> bool:
    return " stopping " in lab.daemon("host1").output()


def test_a_live_transfer_finishes_and_no_trace_is_left(lab: Lab) -> None:
    before = kernel_state(lab)
    daemon = lab.start_daemon("host1", *REMOVE)
    with connected(lab) as (frontend, client, server):
        sender = threading.Thread(target=send_slowly, args=(server,))
        sender.start()
        assert client.recv(1) == BODY[:1]
        daemon.send(signal.SIGTERM)
        wait_until("it stops", lambda: stopping(lab), 5.0)
        time.sleep(0.3)
        refused = [seconds_until_refused(lab, who, frontend) for who in ("client", "host1")]
        print(f"while draining, refused after {max(refused) * 1000:.1f} ms")
        assert max(refused) < 0.5
        assert daemon.alive
        assert BODY[:1] + read_all(client) == BODY
        sender.join()
    began = time.monotonic()
    assert daemon.wait(10) == 0
    print(f"ended {time.monotonic() - began:.1f} s after its last connection")
    assert_same(kernel_state(lab), before)


def test_without_connections_it_ends_at_once(lab: Lab) -> None:
    before = kernel_state(lab)
    daemon = lab.start_daemon("host1", *REMOVE)
    began = time.monotonic()
    assert daemon.stop() == 0
    print(f"ended after {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 3
    assert_same(kernel_state(lab), before)
    assert not lab.admin_socket("host1").exists()


def test_a_second_signal_hurries(lab: Lab) -> None:
    before = kernel_state(lab)
    daemon = lab.start_daemon("host1", *REMOVE)
    with connected(lab) as (_, client, server):
        daemon.send(signal.SIGTERM)
        wait_until("it stops", lambda: stopping(lab), 5.0)
        assert echoes(client, server)
        daemon.send(signal.SIGTERM)
        assert daemon.wait(3) == 0
        for each in (client, server):
            with pytest.raises(ConnectionResetError):
                each.recv(1)
    assert_same(kernel_state(lab), before)


def test_the_drain_time_is_a_limit(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--drain-seconds", "1.5")
    with connected(lab) as (_, client, _server):
        began = time.monotonic()
        daemon.send(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert 1.4 < time.monotonic() - began < 4
        assert daemon.wait(3) == 0


def test_it_can_be_stopped_before_it_has_anything(lab: Lab) -> None:
    """A directory that is not there yet: the daemon waits for it, and still ends when it is told to."""
    before = kernel_state(lab)
    daemon = lab.start_daemon("host1", *REMOVE, "--manifests", str(lab.directory / "not-yet"), wait=False)
    wait_until("it has started", lambda: " started " in daemon.output(), 10.0)
    assert lab.exec(
        "client", "curl", "-s", "-m1", f"http://{SERVER_SERVICE.frontend}", check=False
    ).returncode
    assert daemon.stop() == 0
    assert_same(kernel_state(lab), before)


def send_slowly(server: socket.socket) -> None:
    """50 MB within about two seconds, and the end."""
    part = len(BODY) // 20
    for start in range(0, len(BODY), part):
        server.sendall(BODY[start : start + part])
        time.sleep(0.1)
    server.close()
