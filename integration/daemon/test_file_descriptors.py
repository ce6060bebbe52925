"""Out of file descriptors: pods serve who comes, or it waits a little; nobody is dropped, nothing leaks."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from integration.services import live_connections, publish
from integration.sockets import connect, listen
from integration.vitals import family, open_files
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket

    from userproxy.lab.deployment import Lab

NAME = "crowded"
CLIENTS = 500


def start_with_limit(lab: Lab, limit: int) -> int:
    """A daemon that may have so many open files; returns its pid."""
    return lab.start_daemon("host1", under=("prlimit", f"--nofile={limit}:{limit}")).pid


def serve_one(connection: socket.socket) -> None:
    """Answer one request, after having kept its client waiting for a while."""
    with connection:
        connection.settimeout(30)
        request = connection.recv(100)
        time.sleep(0.3)
        connection.sendall(request)


def serve_all(listener: socket.socket, count: int) -> None:
    for _ in range(count):
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


@pytest.mark.parametrize(
    ("limit", "fall_open"),
    [(200, "false"), (100, "false"), (100, "true")],
    ids=["200-waiting", "100-waiting", "100-to-pods"],
)
def test_many_more_clients_than_descriptors(lab: Lab, limit: int, fall_open: str) -> None:
    pid = start_with_limit(lab, limit)
    with listen(lab, "server2", 7000) as listener:
        listener.settimeout(30)
        frontend = publish(lab, NAME, "10.3.241.70", [Address(SERVER2.ip, 7000)], fall_open=fall_open)
        before, processes = open_files(pid), family(pid)
        server = threading.Thread(target=serve_all, args=(listener, CLIENTS))
        server.start()
        began = time.monotonic()
        clients = [connect(lab, "client", frontend) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        most = live_connections(lab, NAME)
        for number, client in enumerate(clients):
            client.settimeout(60)
            assert client.recv(100) == b"%d" % number
            most = max(most, live_connections(lab, NAME)) if number % 10 == 0 else most
            client.close()
        seconds = time.monotonic() - began
        server.join()
    wait_until("all are over", lambda: live_connections(lab, NAME) == 0, 5.0)
    print(
        f"{CLIENTS} clients, {limit} open files: all served in {seconds:.1f} s, at most {most} at once; "
        f"{before} open files before, {open_files(pid)} afterwards"
    )
    assert most < limit
    if fall_open == "false":  # nobody else can serve them
        assert "accepting waits" in lab.daemon("host1").output()
    assert "Traceback" not in lab.daemon("host1").output()
    assert family(pid) == processes
    assert open_files(pid) <= before + limit // 10  # some pipes are kept for the next bytes


def test_idle_clients_up_to_the_limit_leave_the_rest_waiting_where_pods_are_out_of_reach(lab: Lab) -> None:
    """Where a Service is relayed or nothing, nobody else can serve them; they are not refused either."""
    start_with_limit(lab, 200)
    with listen(lab, "server2", 7000) as listener:
        frontend = publish(lab, NAME, "10.3.241.70", [Address(SERVER2.ip, 7000)], fall_open="false")
        clients = [connect(lab, "client", frontend) for _ in range(120)]
        wait_until("accepting waits", lambda: "accepting waits" in lab.daemon("host1").output(), 5.0)
        accepted = live_connections(lab, NAME)
        servers = [listener.accept()[0] for _ in range(accepted)]
        late = clients[-1]
        late.sendall(b"me too")
        for each in (*clients[:accepted], *servers):
            each.close()
        servers += [listener.accept()[0] for _ in range(120 - accepted)]
        assert servers[-1].recv(10) == b"me too"
        print(f"200 open files: {accepted} of 120 idle clients at once, the others when those had left")
        for each in (*clients, *servers):
            each.close()
