"""A thousand clients at once, each of them still served; and nothing is left of them."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from integration.services import live_connections, published
from integration.sockets import accept, connect, echoes, listen
from integration.vitals import open_files, resident_bytes
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME = "many"
COUNT = 1000


@pytest.fixture
def enough_files() -> Iterator[None]:
    """This process holds both ends of each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("enough_files")
def test_a_thousand_connections_at_once(lab: Lab) -> None:
    pid = lab.daemon("host1").pid
    pods = [Address(pod.ip, 7200) for pod in (SERVER1, SERVER2)]
    with (
        listen(lab, "server1", 7200) as one,
        listen(lab, "server2", 7200) as other,
        published(lab, NAME, "10.3.241.95", pods) as frontend,
    ):
        before = open_files(pid)
        memory = resident_bytes(pid)
        clients = [connect(lab, "client", frontend) for _ in range(COUNT)]
        servers = [accept(listener) for listener in (one, other) for _ in range(COUNT // 2)]
        ends = matched(clients, servers)
        assert all(echoes(client, server) for client, server in ends)
        held = open_files(pid) - before
        grown = resident_bytes(pid) - memory
        assert live_connections(lab, NAME) == COUNT
        assert all(echoes(client, server, b"x" * 100_000) for client, server in ends)
        for client, server in ends:
            client.close()
            server.close()
        wait_until("all are over", lambda: live_connections(lab, NAME) == 0, 10.0)
    left = open_files(pid) - before
    print(
        f"{COUNT} idle connections: {held} file descriptors, {grown / COUNT / 1e3:.1f} kB each; "
        f"{left} left after them"
    )
    assert abs(held - 2 * COUNT) <= 40  # and a few pipes that wait for the next bytes
    assert left <= 40


def matched(
    clients: list[socket.socket], servers: list[socket.socket]
) -> list[tuple[socket.socket, socket.socket]]:
    """Which server has which client: each client says its number."""
    for number, client in enumerate(clients):
        client.sendall(number.to_bytes(4, "big"))
    numbers = {int.from_bytes(server.recv(4), "big"): server for server in servers}
    return [(client, numbers[number]) for number, client in enumerate(clients)]
