"""Clients that wait for a pod while the daemon starts anew, or stops."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from integration.restart.load import has_started
from integration.services import publish
from integration.sockets import accept, connect, echoes, listen, read_all
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket

    from userproxy.lab.deployment import Lab

NAME, IP = "from-zero", "10.3.241.12"
BACKEND = Address(SERVER1.ip, 7000)


def clients_that_wait(lab: Lab, count: int) -> list[socket.socket]:
    frontend = publish(lab, NAME, IP, [], no_endpoints="hold", hold_connections="8")
    clients = [connect(lab, "client", frontend) for _ in range(count)]

    def all_wait() -> bool:
        rows = lab.rows("host1", "connections", "--service", f"default/{NAME}")
        return [row["state"] for row in rows] == ["waiting"] * count

    wait_until("all wait", all_wait, 10.0)
    return clients


def test_over_sighup_they_wait_on_and_are_served(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--workers", "2")
    with listen(lab, "server1", BACKEND.port) as listener:
        clients = clients_that_wait(lab, 4)
        daemon.send(signal.SIGHUP)
        wait_until("it started anew", lambda: has_started(lab, 2), 15.0)
        lab.wait_for_daemon("host1")
        publish(lab, NAME, IP, [BACKEND], no_endpoints="hold")
        servers = {server.getpeername(): server for server in (accept(listener) for _ in clients)}
        assert len(servers) == 4
        for client in clients:
            client.sendall(b"hello")
        assert [server.recv(100) for server in servers.values()] == [b"hello"] * 4


def test_sigterm_ends_the_waiting_at_once_and_gives_others_their_time(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--drain-seconds", "20")
    with listen(lab, "server1", BACKEND.port) as listener:
        frontend = publish(lab, "served", "10.3.241.13", [BACKEND])
        client = connect(lab, "client", frontend)
        server = accept(listener)
        (held,) = clients_that_wait(lab, 1)
        began = time.monotonic()
        daemon.send(signal.SIGTERM)
        try:
            read_all(held)
            end = "in order"
        except ConnectionResetError:
            end = "by a reset"
        seconds = time.monotonic() - began
        print(f"SIGTERM: a waiting client's connection ends {end} after {seconds:.2f} s")
        assert (end, seconds < 10.0) == ("by a reset", True)
        assert echoes(client, server)
        client.close()
        server.close()
        assert daemon.wait(15.0) == 0
